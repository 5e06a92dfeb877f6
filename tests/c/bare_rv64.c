/* See bare_rv64.h. */
#include "bare_rv64.h"

/* FS and VS of mstatus to "initial": floats and vectors trap otherwise. */
__asm__(
    ".section .start, \"ax\"\n"
    ".globl _start\n"
    "_start:\n"
    "  csrr t0, mhartid\n"
    "  bnez t0, sleep\n"
    "  li t0, 0x2200\n"
    "  csrs mstatus, t0\n"
    "  la t0, trap_entry\n"
    "  csrw mtvec, t0\n"
    "  la sp, stack_begin\n"
    "  la t0, bss_begin\n"
    "  la t1, bss_end\n"
    "1:\n"
    "  sd zero, 0(t0)\n"
    "  addi t0, t0, 8\n"
    "  bltu t0, t1, 1b\n"
    "  call main\n"
    "  call bare_exit\n"
    "sleep:\n"
    "  wfi\n"
    "  j sleep\n"
    "  .balign 4\n"
    "trap_entry:\n"
    "  csrr a0, mcause\n"
    "  csrr a1, mepc\n"
    "  csrr a2, mtval\n"
    "  la sp, stack_begin\n"
    "  call bare_trap\n"
    ".text\n");

extern char stack_begin[], stack_end[];
_Noreturn void bare_trap(uint64_t cause, uint64_t at, uint64_t value);

#ifdef BARE_QEMU

static void put(char letter) { *(volatile uint8_t *)0x10000000 = (uint8_t)letter; }

_Noreturn void bare_exit(int status) {
  *(volatile uint32_t *)0x100000 = status ? ((uint32_t)status << 16) | 0x3333u : 0x5555u;
  for (;;) continue;
}

#else

__attribute__((section(".tohost"), aligned(64))) volatile uint64_t tohost, fromhost;

static void put(char letter) {
  tohost = ((uint64_t)1 << 56) | ((uint64_t)1 << 48) | (uint8_t)letter;
  while (tohost) continue; /* Spike takes it away */
}

_Noreturn void bare_exit(int status) {
  tohost = ((uint64_t)(uint32_t)status << 1) | 1u;
  for (;;) continue;
}

#endif

void bare_text(const char *text) {
  while (*text) put(*text++);
}

void bare_number(uint64_t number) {
  char digits[21];
  size_t at = sizeof digits;
  digits[--at] = '\0';
  do {
    digits[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number);
  bare_text(digits + at);
}

void bare_hex(uint64_t number) {
  for (int shift = 60; shift >= 0; shift -= 4) put("0123456789abcdef"[(number >> shift) & 15]);
}

_Noreturn void bare_trap(uint64_t cause, uint64_t at, uint64_t value) {
  bare_text("trap: mcause ");
  bare_number(cause);
  bare_text(" mepc ");
  bare_hex(at);
  bare_text(" mtval ");
  bare_hex(value);
  bare_text("\n");
  bare_exit(3);
}

#define PATTERN 0xA5

void bare_paint_stack(void) {
  char *top = (char *)__builtin_frame_address(0) - 256;
  for (volatile char *at = stack_end; at < top; at++) *at = (char)PATTERN;
}

size_t bare_stack_used(void) {
  const char *top = (const char *)__builtin_frame_address(0), *at = stack_end;
  while (at < top && *at == (char)PATTERN) at++;
  return (size_t)(top - at);
}
