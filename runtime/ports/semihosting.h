/* Arm's semihosting, which RISC-V has taken over: the emulator, or a debugger, does what the firmware
 * asks when it meets a certain instruction. Operation in r0 / a0, the address of a block of words in
 * r1 / a1, the answer in r0 / a0. */
#ifndef FPTT_SEMIHOSTING_H
#define FPTT_SEMIHOSTING_H

#include <stdint.h>

enum { FPTT_SYS_OPEN = 0x01, FPTT_SYS_WRITE = 0x05, FPTT_SYS_EXIT_EXTENDED = 0x20 };
/* why a firmware ends: it wanted to */
#define FPTT_STOPPED_BY_ITSELF 0x20026u

#if defined(__riscv)
uintptr_t fptt_semihost(uintptr_t operation, const void *block); /* in start.S */
#else
static inline uintptr_t fptt_semihost(uintptr_t operation, const void *block) {
  register uintptr_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = block;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}
#endif

static inline void fptt_semihost_write(const char *text, uintptr_t bytes) {
  static uintptr_t console; /* 0: not open yet; numbers of files start at 1 */
  if (!console) {
    /* the console's name is ":tt", of 3 letters; mode 4 is "w" */
    const uintptr_t open[3] = {(uintptr_t)":tt", 4, 3};
    console = fptt_semihost(FPTT_SYS_OPEN, open);
  }
  if (console == UINTPTR_MAX) return;
  /* the answer is how many bytes are left: a pipe takes only so much at once */
  while (bytes) {
    const uintptr_t write[3] = {console, (uintptr_t)text, bytes};
    uintptr_t left = fptt_semihost(FPTT_SYS_WRITE, write);
    if (left > bytes) return;
    text += bytes - left;
    bytes = left;
  }
}

static inline void fptt_semihost_exit(int code) {
  const uintptr_t why[2] = {FPTT_STOPPED_BY_ITSELF, (uintptr_t)code};
  fptt_semihost(FPTT_SYS_EXIT_EXTENDED, why);
}

#endif
