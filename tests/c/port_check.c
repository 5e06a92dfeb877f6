/* What a port promises (runtime/ports/port.h), for tests/test_device_ports.py. CHECK chooses what is
 * done; all answers are lines "name number". */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__riscv) || defined(__arm__)
#include "bare.h"
#else
#include "port.h"
#endif

enum { VALUES, COUNTS, WRAP, TEXT, STACK, EXIT, NULL_CALL, ILLEGAL, OVERFLOW, FOREVER };
#ifndef BSS_BYTES
#define BSS_BYTES 100000
#endif
#ifndef MEGABYTE
#define MEGABYTE (1024 * 1024)
#endif
#ifndef PIECES
#define PIECES 1
#endif
#ifndef EXIT_CODE
#define EXIT_CODE 0
#endif

static void print(const char *name, uint64_t value) {
  char line[80];
  size_t length = strlen(name), end = sizeof line;
  memcpy(line, name, length);
  line[length++] = ' ';
  char digits[20];
  size_t count = 0;
  do digits[count++] = (char)('0' + value % 10);
  while (value /= 10);
  while (count && length < end - 1) line[length++] = digits[--count];
  line[length++] = '\n';
  fptt_port_write(line, length);
}

/* ---- memory, floating point, vectors ---- */

static uint32_t initialised[] = {1, 22, 333, 4444};
static uint32_t *pointer = initialised + 2;
static unsigned char zero[BSS_BYTES];
static const char constant[] = "constant";

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static void values(void) {
  volatile uint32_t *data = initialised;
  print("data", data[0] + data[1] + data[3] + *pointer);
  *pointer += 1;
  print("data_changed", data[2]);
  uint64_t sum = 0;
  for (size_t n = 0; n < BSS_BYTES; n++) sum += ((volatile unsigned char *)zero)[n];
  print("bss", sum);
  memset(zero, 1, sizeof zero);
  for (size_t n = 0; n < BSS_BYTES; n++) sum += ((volatile unsigned char *)zero)[n];
  print("bss_written", sum);
#if defined(__riscv) || defined(__arm__)
  /* Emulators give memory full of zeros; the start must not count on that. */
  fptt_bare_memory();
  for (size_t n = 0; n < BSS_BYTES; n++) sum += ((volatile unsigned char *)zero)[n];
  print("bss_again", sum);
  print("data_again", data[2]);
#endif
  print("constant", strlen(constant));
  print("pointer_bytes", sizeof(void *));

  volatile float one = 1.0f, three = 3.0f, tiny = 0x1p-126f;
  print("third", bits_of(one / three));
  print("sum", bits_of(one / three + three));
  print("product", bits_of(one / three * (one / three)));
  /* a subnormal number stays one */
  print("subnormal", bits_of(tiny / three));
  volatile double precise = 1.0;
  print("double", bits_of((float)(precise / 3.0)));

#if defined(VECTORS) && defined(__riscv)
  uintptr_t vlenb, elements;
  __asm__ volatile("csrr %0, 0xc22" : "=r"(vlenb));
  /* vsetvli a0, zero, e32, m1, written as a number for assemblers that know no vectors */
  __asm__ volatile("li a0, 0\n .word 0x01007557\n mv %0, a0" : "=r"(elements) : : "a0");
  print("vector_bits", 8 * vlenb);
  print("vector_floats", elements);
#elif defined(__ARM_FEATURE_MVE)
  uint32_t sum_of_lanes;
  __asm__ volatile("vmov.i32 q0, #5\n vaddv.u32 %0, q0" : "=Te"(sum_of_lanes) : : "q0");
  print("vector_sum", sum_of_lanes);
#endif
}

/* ---- instructions ---- */

/* two instructions a turn */
static void turns(uint32_t count) {
#if defined(__riscv)
  __asm__ volatile("1: addi %0, %0, -1\n bnez %0, 1b" : "+r"(count));
#elif defined(__arm__)
  __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+r"(count) : : "cc");
#else
  while (count--) __asm__ volatile("");
#endif
}

static void count(const char *name, uint32_t turns_wanted) {
  uint64_t before = fptt_port_instructions();
  turns(turns_wanted);
  print(name, fptt_port_instructions() - before);
}

/* straight code, so that a counter of coarser steps is found out */
#define NOPS(n, text)                                     \
  do {                                                    \
    uint64_t before = fptt_port_instructions();           \
    __asm__ volatile(text ::: "memory");                  \
    print("nops_" #n, fptt_port_instructions() - before); \
  } while (0)

static void counts(void) {
  static const uint32_t lengths[] = {1, 2, 3, 1000, 2000, 3000, 1000000, 2000000, 3000000,
                                     20000000, 40000000, 60000000};
  for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++) count("turns", lengths[n]);
#if defined(__riscv) || defined(__arm__)
  NOPS(0, "");
  NOPS(1, "nop");
  NOPS(2, "nop\n nop");
  NOPS(3, "nop\n nop\n nop");
  NOPS(4, "nop\n nop\n nop\n nop");
  NOPS(5, "nop\n nop\n nop\n nop\n nop");
  NOPS(6, "nop\n nop\n nop\n nop\n nop\n nop");
  NOPS(7, "nop\n nop\n nop\n nop\n nop\n nop\n nop");
  NOPS(8, "nop\n nop\n nop\n nop\n nop\n nop\n nop\n nop");
#endif
  uint64_t before = fptt_port_instructions();
  fptt_port_write("written\n", 8);
  print("write", fptt_port_instructions() - before);
}

/* past 2^32 instructions, and so past 2^32 ticks of every counter behind them */
static void wrap(void) {
  uint64_t start = fptt_port_instructions();
  for (int n = 0; n < PIECES; n++) count("turns", 100000000);
  print("all", fptt_port_instructions() - start);
}

/* ---- text ---- */

static char kilobyte[1024], megabyte[MEGABYTE];

static void text(void) {
  for (size_t n = 0; n < sizeof kilobyte; n++) kilobyte[n] = (char)('a' + n % 26);
  kilobyte[1023] = '\n';
  for (size_t n = 0; n < 1024; n++) fptt_port_write(kilobyte, sizeof kilobyte);
  for (size_t n = 0; n < MEGABYTE / 1024; n++) memcpy(megabyte + 1024 * n, kilobyte, 1024);
  fptt_port_write(megabyte, sizeof megabyte);
  /* NUL and bytes above 127 are bytes like others, and none is no byte */
  fptt_port_write("\0\xc3\xa9\n", 4);
  fptt_port_write("", 0);
}

/* ---- stack ---- */

#if defined(__clang__)
#define APART __attribute__((noinline))
#else
#define APART __attribute__((noinline, noclone))
#endif

APART unsigned deep(unsigned depth);
APART unsigned deep(unsigned depth) {
  volatile unsigned char block[256];
  for (size_t n = 0; n < sizeof block; n++) block[n] = (unsigned char)depth;
  unsigned below = depth ? deep(depth - 1) : 0;
  return below + block[depth & 255u];
}

static void stack(void) {
  fptt_port_paint_stack();
  print("used", fptt_port_stack_used());
  for (unsigned depth = 0; depth <= 16; depth += 4) {
    volatile unsigned sum = deep(depth);
    (void)sum;
    print("used", fptt_port_stack_used());
  }
  volatile unsigned sum = deep(2);
  (void)sum;
  print("used", fptt_port_stack_used());
  fptt_port_paint_stack();
  print("used", fptt_port_stack_used());
}

int main(void) {
  /* volatile, so that the compiler does not see what cannot end well */
  volatile int check = CHECK;
  switch (check) {
    case VALUES: values(); break;
    case COUNTS: counts(); break;
    case WRAP: wrap(); break;
    case TEXT: text(); break;
    case STACK: stack(); break;
    case EXIT: fptt_port_exit(EXIT_CODE); break;
    case NULL_CALL: {
      void (*volatile nowhere)(void) = (void (*)(void))0;
      nowhere();
      break;
    }
    case ILLEGAL:
#if defined(__riscv)
      __asm__ volatile(".word 0");
#elif defined(__arm__)
      __asm__ volatile("udf #0");
#else
      __builtin_trap();
#endif
      break;
    case OVERFLOW: print("deep", deep(1u << 24)); break;
    default:
      fptt_port_write("turning\n", 8);
      for (;;) {
      }
  }
  return EXIT_CODE;
}
