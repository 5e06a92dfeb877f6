/* The inner loops of products_scalar.c in assembly, for Arm cores with the floating-point unit of
 * the Cortex-M4 (single precision, 32 registers).
 *
 * A VLDM fills up to 16 registers, which no compiler does of its own accord: about 1.2 instructions
 * for a multiply-add in the place of 1.5 to 2.2. What they compute, and in which order, is what the
 * loops in products_scalar.c compute; -DFPTT_ASSEMBLY=0 compiles those.
 *
 * Sums begin with what stands at `from` and go to `to`, which may be the same; strides are in
 * elements.
 */
#ifndef FPTT_PRODUCTS_CORTEX_M4_H
#define FPTT_PRODUCTS_CORTEX_M4_H

#include <stddef.h>

#define FPTT_KERNEL_ASM static __attribute__((noinline))

#define FPTT_ALL_FLOATS                                                                           \
  "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14",  \
      "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24", "s25", "s26", "s27",  \
      "s28", "s29", "s30", "s31"

#define FPTT_FMA(sum, a, b) "vfma.f32 s" #sum ", s" #a ", s" #b "\n"

/* sums 0..19 as 4 x 5: five of s`b`.. times one number each */
#define FPTT_FMA5(sum0, sum1, sum2, sum3, sum4, a, b0, b1, b2, b3, b4)                            \
  FPTT_FMA(sum0, a, b0)                                                                           \
  FPTT_FMA(sum1, a, b1) FPTT_FMA(sum2, a, b2) FPTT_FMA(sum3, a, b3) FPTT_FMA(sum4, a, b4)
#define FPTT_ROW0(a, ...) FPTT_FMA5_(0, 1, 2, 3, 4, a, __VA_ARGS__)
#define FPTT_ROW1(a, ...) FPTT_FMA5_(5, 6, 7, 8, 9, a, __VA_ARGS__)
#define FPTT_ROW2(a, ...) FPTT_FMA5_(10, 11, 12, 13, 14, a, __VA_ARGS__)
#define FPTT_ROW3(a, ...) FPTT_FMA5_(15, 16, 17, 18, 19, a, __VA_ARGS__)
#define FPTT_FMA5_(...) FPTT_FMA5(__VA_ARGS__)

static const float fptt_zeros[16];

/* Where the sums of four rows begin and where they go; strides in bytes. */
typedef struct {
  const float *from;
  size_t from_by;
  float *to;
  size_t to_by;
} fptt_places;

#define FPTT_FOUR_ROWS(how, at)                                                                   \
  "ldrd %[pointer], %[by], [%[places], #" #at "]\n"                                               \
  how " %[pointer], {s0-s4}\n"                                                                    \
  "add %[pointer], %[pointer], %[by]\n"                                                           \
  how " %[pointer], {s5-s9}\n"                                                                    \
  "add %[pointer], %[pointer], %[by]\n"                                                           \
  how " %[pointer], {s10-s14}\n"                                                                  \
  "add %[pointer], %[pointer], %[by]\n"                                                           \
  how " %[pointer], {s15-s19}\n"
#define FPTT_LOAD_SUMS FPTT_FOUR_ROWS("vldmia", 0)
#define FPTT_STORE_SUMS FPTT_FOUR_ROWS("vstmia", 8)

/* -- product -------------------------------------------------------------------------------- */

/* sums[c] += x[k] w[k, c], 16 columns. Registers: sums s0..15, w s16..23, x s24..31. */
FPTT_KERNEL_ASM void product_1x16(const float *from, float *to, size_t inner, const float *x,
                                  const float *w, size_t w_stride) {
  size_t blocks = inner / 8, rest = inner % 8, skip = 4 * (w_stride - 8);
#define FPTT_EIGHT(sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7, x)                             \
  FPTT_FMA(sum0, 16, x)                                                                           \
  FPTT_FMA(sum1, 17, x) FPTT_FMA(sum2, 18, x) FPTT_FMA(sum3, 19, x) FPTT_FMA(sum4, 20, x)         \
  FPTT_FMA(sum5, 21, x) FPTT_FMA(sum6, 22, x) FPTT_FMA(sum7, 23, x)
#define FPTT_STEP(x)                                                                              \
  "vldmia %[w]!, {s16-s23}\n"                                                                     \
  FPTT_EIGHT(0, 1, 2, 3, 4, 5, 6, 7, x)                                                           \
  "vldmia %[w], {s16-s23}\n"                                                                      \
  "add %[w], %[w], %[skip]\n"                                                                     \
  FPTT_EIGHT(8, 9, 10, 11, 12, 13, 14, 15, x)
  __asm volatile(
      "vldmia %[from], {s0-s15}\n"
      "cmp %[blocks], #0\n"
      "beq 2f\n"
      "1:\n"
      "vldmia %[x]!, {s24-s31}\n"
      FPTT_STEP(24) FPTT_STEP(25) FPTT_STEP(26) FPTT_STEP(27)
      FPTT_STEP(28) FPTT_STEP(29) FPTT_STEP(30) FPTT_STEP(31)
      "subs %[blocks], %[blocks], #1\n"
      "bne 1b\n"
      "2:\n"
      "cmp %[rest], #0\n"
      "beq 4f\n"
      "3:\n"
      "vldmia %[x]!, {s24}\n"
      FPTT_STEP(24)
      "subs %[rest], %[rest], #1\n"
      "bne 3b\n"
      "4:\n"
      "vstmia %[to], {s0-s15}\n"
      : [blocks] "+r"(blocks), [rest] "+r"(rest), [x] "+r"(x), [w] "+r"(w)
      : [from] "r"(from), [to] "r"(to), [skip] "r"(skip)
      : FPTT_ALL_FLOATS, "cc", "memory");
#undef FPTT_STEP
#undef FPTT_EIGHT
}

/* sums[r, c] += x[r, k] w[k, c], 4 rows, 5 columns, two k at a time.
 * Registers: sums s0..19, w s20..29, x s30..31. */
FPTT_KERNEL_ASM void product_4x5(const fptt_places *places, size_t inner, const float *x,
                                 size_t x_stride, const float *w, size_t w_stride) {
  size_t blocks = inner / 2, w_by = 4 * w_stride, by;
  const float *pointer;
  const float *x1 = x + x_stride, *x2 = x1 + x_stride, *x3 = x2 + x_stride;
#define FPTT_STEP(row, x)                                                                         \
  "vldmia %[" #x "]!, {s30-s31}\n"                                                                \
  FPTT_ROW##row(30, 20, 21, 22, 23, 24)                                                           \
  FPTT_ROW##row(31, 25, 26, 27, 28, 29)
#define FPTT_REST(row, x)                                                                         \
  "vldr s30, [%[" #x "]]\n"                                                                       \
  FPTT_ROW##row(30, 20, 21, 22, 23, 24)
  __asm volatile(
      FPTT_LOAD_SUMS
      "cmp %[blocks], #0\n"
      "beq 2f\n"
      "1:\n"
      "vldmia %[w], {s20-s24}\n"
      "add %[w], %[w], %[w_by]\n"
      "vldmia %[w], {s25-s29}\n"
      "add %[w], %[w], %[w_by]\n"
      FPTT_STEP(0, x) FPTT_STEP(1, x1) FPTT_STEP(2, x2) FPTT_STEP(3, x3)
      "subs %[blocks], %[blocks], #1\n"
      "bne 1b\n"
      "2:\n"
      "tst %[inner], #1\n"
      "beq 3f\n"
      "vldmia %[w], {s20-s24}\n"
      FPTT_REST(0, x) FPTT_REST(1, x1) FPTT_REST(2, x2) FPTT_REST(3, x3)
      "3:\n"
      FPTT_STORE_SUMS
      : [blocks] "+r"(blocks), [w] "+r"(w), [x] "+r"(x), [x1] "+r"(x1), [x2] "+r"(x2),
        [x3] "+r"(x3), [pointer] "=&r"(pointer), [by] "=&r"(by)
      : [places] "r"(places), [w_by] "r"(w_by), [inner] "r"(inner)
      : FPTT_ALL_FLOATS, "cc", "memory");
#undef FPTT_STEP
#undef FPTT_REST
}

/* -- product_transposed ---------------------------------------------------------------------- */

/* sums[c] += x[k] w[c, k], 8 columns, eight k at a time; rows of w two by two, so that no
 * multiply-add waits for the one before it. Registers: sums s0..7, x s8..15, w s16..31. */
FPTT_KERNEL_ASM void transposed_1x8(const float *from, float *to, size_t inner, const float *x,
                                    const float *w, size_t w_stride) {
  size_t count = inner / 8, rest = inner % 8;
  const float *w1 = w + w_stride, *w2 = w1 + w_stride, *w3 = w2 + w_stride, *w4 = w3 + w_stride;
  const float *w5 = w4 + w_stride, *w6 = w5 + w_stride, *w7 = w6 + w_stride;
#define FPTT_STEP(a, b, wa, wb)                                                                   \
  "vldmia %[" #wa "]!, {s16-s23}\n"                                                               \
  "vldmia %[" #wb "]!, {s24-s31}\n"                                                               \
  FPTT_FMA(a, 8, 16) FPTT_FMA(b, 8, 24) FPTT_FMA(a, 9, 17) FPTT_FMA(b, 9, 25)                     \
  FPTT_FMA(a, 10, 18) FPTT_FMA(b, 10, 26) FPTT_FMA(a, 11, 19) FPTT_FMA(b, 11, 27)                 \
  FPTT_FMA(a, 12, 20) FPTT_FMA(b, 12, 28) FPTT_FMA(a, 13, 21) FPTT_FMA(b, 13, 29)                 \
  FPTT_FMA(a, 14, 22) FPTT_FMA(b, 14, 30) FPTT_FMA(a, 15, 23) FPTT_FMA(b, 15, 31)
#define FPTT_REST(a, w)                                                                           \
  "vldmia %[" #w "]!, {s16}\n"                                                                    \
  FPTT_FMA(a, 8, 16)
  __asm volatile(
      "vldmia %[from], {s0-s7}\n"
      "cmp %[count], #0\n"
      "beq 2f\n"
      "1:\n"
      "vldmia %[x]!, {s8-s15}\n"
      FPTT_STEP(0, 1, w, w1) FPTT_STEP(2, 3, w2, w3) FPTT_STEP(4, 5, w4, w5) FPTT_STEP(6, 7, w6, w7)
      "subs %[count], %[count], #1\n"
      "bne 1b\n"
      "2:\n"
      "vstmia %[to], {s0-s7}\n"
      : [count] "+r"(count), [x] "+r"(x), [w] "+r"(w), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3),
        [w4] "+r"(w4), [w5] "+r"(w5), [w6] "+r"(w6), [w7] "+r"(w7)
      : [from] "r"(from), [to] "r"(to)
      : FPTT_ALL_FLOATS, "cc", "memory");
  if (!rest) return;
  __asm volatile(
      "vldmia %[to], {s0-s7}\n"
      "1:\n"
      "vldmia %[x]!, {s8}\n"
      FPTT_REST(0, w) FPTT_REST(1, w1) FPTT_REST(2, w2) FPTT_REST(3, w3)
      FPTT_REST(4, w4) FPTT_REST(5, w5) FPTT_REST(6, w6) FPTT_REST(7, w7)
      "subs %[rest], %[rest], #1\n"
      "bne 1b\n"
      "vstmia %[to], {s0-s7}\n"
      : [rest] "+r"(rest), [x] "+r"(x), [w] "+r"(w), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3),
        [w4] "+r"(w4), [w5] "+r"(w5), [w6] "+r"(w6), [w7] "+r"(w7)
      : [to] "r"(to)
      : FPTT_ALL_FLOATS, "cc", "memory");
#undef FPTT_STEP
#undef FPTT_REST
}

/* sums[r, c] += x[r, k] w[c, k], 4 rows, 5 columns, two k at a time.
 * Registers: sums s0..19, w s20..29, x s30..31. */
FPTT_KERNEL_ASM void transposed_4x5(const fptt_places *places, size_t inner, const float *x,
                                    size_t x_stride, const float *w, size_t w_stride) {
  const fptt_places again = {places->to, places->to_by, places->to, places->to_by};
  const float *pointer;
  size_t blocks = inner / 2, by;
  const float *x1 = x + x_stride, *x2 = x1 + x_stride, *x3 = x2 + x_stride;
  const float *w1 = w + w_stride, *w2 = w1 + w_stride, *w3 = w2 + w_stride, *w4 = w3 + w_stride;
#define FPTT_STEP(row, x)                                                                         \
  "vldmia %[" #x "]!, {s30-s31}\n"                                                                \
  FPTT_ROW##row(30, 20, 22, 24, 26, 28)                                                           \
  FPTT_ROW##row(31, 21, 23, 25, 27, 29)
#define FPTT_REST(row, x)                                                                         \
  "vldr s30, [%[" #x "]]\n"                                                                       \
  FPTT_ROW##row(30, 20, 22, 24, 26, 28)
  __asm volatile(
      FPTT_LOAD_SUMS
      "cmp %[blocks], #0\n"
      "beq 2f\n"
      "1:\n"
      "vldmia %[w]!, {s20-s21}\n"
      "vldmia %[w1]!, {s22-s23}\n"
      "vldmia %[w2]!, {s24-s25}\n"
      "vldmia %[w3]!, {s26-s27}\n"
      "vldmia %[w4]!, {s28-s29}\n"
      FPTT_STEP(0, x) FPTT_STEP(1, x1) FPTT_STEP(2, x2) FPTT_STEP(3, x3)
      "subs %[blocks], %[blocks], #1\n"
      "bne 1b\n"
      "2:\n"
      FPTT_STORE_SUMS
      : [blocks] "+r"(blocks), [w] "+r"(w), [w1] "+r"(w1), [w2] "+r"(w2), [w3] "+r"(w3),
        [w4] "+r"(w4), [x] "+r"(x), [x1] "+r"(x1), [x2] "+r"(x2), [x3] "+r"(x3),
        [pointer] "=&r"(pointer), [by] "=&r"(by)
      : [places] "r"(places)
      : FPTT_ALL_FLOATS, "cc", "memory");
  if (inner % 2 == 0) return;
  __asm volatile(
      FPTT_LOAD_SUMS
      "vldr s20, [%[w]]\n"
      "vldr s22, [%[w1]]\n"
      "vldr s24, [%[w2]]\n"
      "vldr s26, [%[w3]]\n"
      "vldr s28, [%[w4]]\n"
      FPTT_REST(0, x) FPTT_REST(1, x1) FPTT_REST(2, x2) FPTT_REST(3, x3)
      FPTT_STORE_SUMS
      : [pointer] "=&r"(pointer), [by] "=&r"(by)
      : [places] "r"(&again), [w] "r"(w), [w1] "r"(w1), [w2] "r"(w2), [w3] "r"(w3), [w4] "r"(w4),
        [x] "r"(x), [x1] "r"(x1), [x2] "r"(x2), [x3] "r"(x3)
      : FPTT_ALL_FLOATS, "memory");
#undef FPTT_STEP
#undef FPTT_REST
}

/* -- gradient -------------------------------------------------------------------------------- */

/* to[r, c] += p[i, r] q[i, c] over n rows, 4 lines, `tiles` times 5 columns; where the sums are
 * `fresh` they begin with zero.
 * Registers: sums s0..19, q s20..24, p s25..28. */
FPTT_KERNEL_ASM void gradient_4x5(size_t tiles, size_t n, const float *p, size_t p_stride,
                                  const float *q, size_t q_stride, float *to, size_t to_stride,
                                  int fresh) {
  const size_t p_by = 4 * p_stride, q_by = 4 * q_stride;
  fptt_places places = {fresh ? fptt_zeros : to, fresh ? 0 : 4 * to_stride, to, 4 * to_stride};
#define FPTT_STEP                                                                                 \
  "vldmia %[q], {s20-s24}\n"                                                                      \
  "vldmia %[p], {s25-s28}\n"                                                                      \
  "add %[q], %[q], %[q_by]\n"                                                                     \
  "add %[p], %[p], %[p_by]\n"                                                                     \
  FPTT_ROW0(25, 20, 21, 22, 23, 24)                                                               \
  FPTT_ROW1(26, 20, 21, 22, 23, 24)                                                               \
  FPTT_ROW2(27, 20, 21, 22, 23, 24)                                                               \
  FPTT_ROW3(28, 20, 21, 22, 23, 24)
  for (; tiles; tiles--) {
    const float *p_at = p, *q_at = q, *pointer;
    size_t blocks = n / 4, rest = n % 4, by;
    __asm volatile(
        FPTT_LOAD_SUMS
        "cmp %[blocks], #0\n"
        "beq 2f\n"
        "1:\n"
        FPTT_STEP FPTT_STEP FPTT_STEP FPTT_STEP
        "subs %[blocks], %[blocks], #1\n"
        "bne 1b\n"
        "2:\n"
        "cmp %[rest], #0\n"
        "beq 4f\n"
        "3:\n"
        FPTT_STEP
        "subs %[rest], %[rest], #1\n"
        "bne 3b\n"
        "4:\n"
        FPTT_STORE_SUMS
        : [blocks] "+r"(blocks), [rest] "+r"(rest), [p] "+r"(p_at), [q] "+r"(q_at),
          [pointer] "=&r"(pointer), [by] "=&r"(by)
        : [p_by] "r"(p_by), [q_by] "r"(q_by), [places] "r"(&places)
        : FPTT_ALL_FLOATS, "cc", "memory");
    q += 5;
    places.to += 5;
    if (!fresh) places.from += 5;
  }
#undef FPTT_STEP
}

#endif
