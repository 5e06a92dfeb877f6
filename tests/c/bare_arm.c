/* Start, output and a count of instructions for test programs on qemu's mps2-an386 (Cortex-M4F),
 * with semihosting and -icount shift=6: an instruction takes 64 ns, a tick of the timer 40 ns. */
#include <stddef.h>
#include <stdint.h>

int run(void);
void say(const char *text);
uint64_t instructions(void);
void reset(void);
extern char stack_top[];

static int semihost(int operation, uintptr_t argument) {
  register int r0 __asm__("r0") = operation;
  register uintptr_t r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static _Noreturn void stop(int status) {
  semihost(0x18, status ? 0x20023 : 0x20026); /* a run-time error; the end of the application */
  for (;;) {
  }
}

static void fault(void) {
  say("fault\n");
  stop(1);
}

/* kept by the linker script, at address 0 */
extern const void *const vectors[];
__attribute__((section(".vectors"), used)) const void *const vectors[16] = {
    stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

void reset(void) {
  REGISTER(0xE000ED88) |= 0xFu << 20; /* the floating-point unit on */
  __asm__ volatile("dsb\nisb");
  REGISTER(0x40000008) = 0xFFFFFFFF; /* timer 0: start, value, on */
  REGISTER(0x40000004) = 0xFFFFFFFF;
  REGISTER(0x40000000) = 1;
  stop(run());
}

void say(const char *text) { semihost(4, (uintptr_t)text); }

uint64_t instructions(void) {
  return (uint64_t)(0xFFFFFFFFu - REGISTER(0x40000004)) * 40 / 64;
}
