/* Cortex-M4 and M55 on the boards MPS2 (AN386) and MPS3 (AN547), as QEMU has them. */
#include "bare.h"
#include "semihosting.h"

int main(void);

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define CPACR REGISTER(0xE000ED88u)
#define CFSR REGISTER(0xE000ED28u)
#define MPU_CONTROL REGISTER(0xE000ED94u)
#define MPU_NUMBER REGISTER(0xE000ED98u)
#define MPU_BASE REGISTER(0xE000ED9Cu)
#define MPU_SIZE REGISTER(0xE000EDA0u)

/* ---- console and end ---- */

void fptt_port_write(const char *text, size_t bytes) { fptt_semihost_write(text, bytes); }

void fptt_port_exit(int code) {
  for (;;) fptt_semihost_exit(code);
}

/* ---- instructions ---- */

/* QEMU does not model the processor's cycle counter, but with -icount shift=6 an instruction takes
 * 64 ns of the machine's time. A counter with shorter ticks tells any two instructions apart. */
#if defined(__ARM_FEATURE_MVE)

/* The system counter: 64 bits, 32 MHz: floor(2.048 n) ticks after n instructions. */
#define CNTCR REGISTER(0x58100000u)
#define CNTCV_LOW REGISTER(0x58101000u)
#define CNTCV_HIGH REGISTER(0x58101004u)

static void start_counter(void) { CNTCR = 1; }

uint64_t fptt_port_instructions(void) {
  uint32_t high, low;
  do {
    high = CNTCV_HIGH;
    low = CNTCV_LOW;
  } while (high != CNTCV_HIGH);
  return (((uint64_t)high << 32 | low) * 125 + 255) / 256;
}

#else

/* Timer 0: 32 bits downwards, 25 MHz: floor(1.6 n) + 1 ticks after n instructions. How often it has
 * come round tells a counter of 10 ms, which runs already. No branch: a reading takes always as long. */
#define TIMER_CONTROL REGISTER(0x40000000u)
#define TIMER_VALUE REGISTER(0x40000004u)
#define TIMER_RELOAD REGISTER(0x40000008u)
#define HUNDREDTHS REGISTER(0x40028014u)
#define TICKS_IN_A_HUNDREDTH 250000u

static uint32_t hundredths_at_start;

static void start_counter(void) {
  TIMER_RELOAD = UINT32_MAX;
  TIMER_VALUE = UINT32_MAX;
  hundredths_at_start = HUNDREDTHS;
  TIMER_CONTROL = 1;
}

uint64_t fptt_port_instructions(void) {
  /* the first of the hundredths had begun before the timer did: one less is surely past */
  uint64_t past = (uint64_t)(HUNDREDTHS - hundredths_at_start) * TICKS_IN_A_HUNDREDTH;
  past -= TICKS_IN_A_HUNDREDTH;
  uint64_t ticks = past + (uint32_t)(UINT32_MAX - TIMER_VALUE - (uint32_t)past);
  return ticks * 5 / 8;
}

#endif

/* ---- from reset to main ---- */

/* The M4's board ignores what goes to addresses without memory. Memory protection, region 0: nobody
 * touches the 64 KiB under the stack; everything else stays as it is. The M55's board faults anyway. */
static void guard_stack(void) {
#if !defined(__ARM_FEATURE_MVE)
  MPU_NUMBER = 0;
  MPU_BASE = (uint32_t)(uintptr_t)fptt_stack_bottom - 0x10000u;
  MPU_SIZE = 15u << 1 | 1u; /* 2^(15 + 1) bytes, no access, on */
  MPU_CONTROL = 5;
  __asm__ volatile("dsb\n isb" ::: "memory");
#endif
}

_Noreturn void fptt_start(void);
_Noreturn void fptt_start(void) {
  /* coprocessors 10 and 11: floating point, and Helium where it is */
  CPACR |= 0xFu << 20;
  __asm__ volatile("dsb\n isb" ::: "memory");
  fptt_bare_memory();
  guard_stack();
  start_counter();
  fptt_port_exit(main());
}

/* Tells the exception's number, where it happened and the fault status register. */
__attribute__((used)) static void report(const uintptr_t *frame) {
  uintptr_t exception;
  __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
  /* after an overflow the frame is where no memory is */
  int inside = frame >= fptt_stack_bottom && frame + 8 <= fptt_stack_top;
  fptt_bare_fault(inside ? "fault: exception, pc, cfsr"
                         : "fault: stack overflow; exception, pc, cfsr",
                  (const uintptr_t[3]){exception, inside ? frame[6] : 0, CFSR});
}

/* Nobody returns from here; where the stack has no room left, or is not where it should be, it starts
 * anew. */
__attribute__((naked)) static void fault(void) {
  __asm__ volatile(
      "mrs r0, msp\n"
      "ldr r1, =fptt_stack_bottom + 256\n"
      "ldr r2, =fptt_stack_top\n"
      "cmp r0, r1\n"
      "blo 1f\n"
      "cmp r0, r2\n"
      "bls 2f\n"
      "1: msr msp, r2\n"
      "2: b report\n");
}

typedef void (*handler)(void);

__attribute__((section(".fptt_vectors"), used)) static const struct {
  uintptr_t *stack;
  handler handlers[15];
} vectors = {
    fptt_stack_top,
    {fptt_start, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
     fault, fault},
};
