/* Vectors of FPTT_LANES floats, written with the compiler's vector extension. With one lane a
 * vector is a float, so the same kernels are plain scalar code on a target without vectors. */
#ifndef FPTT_VECTOR_H
#define FPTT_VECTOR_H

#include "target.h"

#if FPTT_LANES == 1

typedef float fptt_vec;

FPTT_INLINE fptt_vec fptt_load(const float *from) { return *from; }
FPTT_INLINE void fptt_store(float *to, fptt_vec value) { *to = value; }
FPTT_INLINE fptt_vec fptt_load_bf16(const fptt_bf16 *from) { return fptt_widen(*from); }
FPTT_INLINE float fptt_sum(fptt_vec value) { return value; }
FPTT_INLINE void fptt_sums(float a, float b, float c, float d, float sums[4]) {
  sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

#else

typedef float fptt_vec __attribute__((vector_size(4 * FPTT_LANES)));
typedef uint32_t fptt_uvec __attribute__((vector_size(4 * FPTT_LANES)));
typedef uint16_t fptt_half __attribute__((vector_size(2 * FPTT_LANES)));

FPTT_INLINE fptt_vec fptt_load(const float *from) {
  fptt_vec value;
  memcpy(&value, from, sizeof value);
  return value;
}

FPTT_INLINE void fptt_store(float *to, fptt_vec value) { memcpy(to, &value, sizeof value); }

FPTT_INLINE fptt_vec fptt_load_bf16(const fptt_bf16 *from) {
  fptt_half half;
  memcpy(&half, from, sizeof half);
  fptt_uvec bits = __builtin_convertvector(half, fptt_uvec) << 16;
  fptt_vec value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Adding up the lanes of four vectors at once, in halves. `FPTT_HALVES` takes two vectors and gives
 * one whose lower half is the sum of the first one's halves, the upper half that of the second;
 * `FPTT_QUARTERS` does the same within the halves. The order of the additions depends on nothing
 * but FPTT_LANES. */
#if FPTT_LANES == 16
#define FPTT_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define FPTT_HALVES(a, b)                                                            \
  (FPTT_PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +         \
   FPTT_PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define FPTT_QUARTERS(a, b)                                                          \
  (FPTT_PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +       \
   FPTT_PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
#define FPTT_FOLD(a)                                                                       \
  a += FPTT_PICK(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);              \
  a += FPTT_PICK(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
#elif FPTT_LANES == 8
#define FPTT_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define FPTT_HALVES(a, b) \
  (FPTT_PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + FPTT_PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define FPTT_QUARTERS(a, b) \
  (FPTT_PICK(a, b, 0, 1, 4, 5, 8, 9, 12, 13) + FPTT_PICK(a, b, 2, 3, 6, 7, 10, 11, 14, 15))
#define FPTT_FOLD(a) a += FPTT_PICK(a, a, 1, 0, 3, 2, 5, 4, 7, 6);
#else
#define FPTT_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define FPTT_HALVES(a, b) (FPTT_PICK(a, b, 0, 1, 4, 5) + FPTT_PICK(a, b, 2, 3, 6, 7))
#define FPTT_QUARTERS(a, b) (FPTT_PICK(a, b, 0, 2, 4, 6) + FPTT_PICK(a, b, 1, 3, 5, 7))
#define FPTT_FOLD(a)
#endif

/* The sums of the lanes of four vectors. */
FPTT_INLINE void fptt_sums(fptt_vec a, fptt_vec b, fptt_vec c, fptt_vec d, float sums[4]) {
  fptt_vec ab = FPTT_HALVES(a, b), cd = FPTT_HALVES(c, d);
  fptt_vec all = FPTT_QUARTERS(ab, cd);
  FPTT_FOLD(all)
  sums[0] = all[0];
  sums[1] = all[FPTT_LANES / 4];
  sums[2] = all[FPTT_LANES / 2];
  sums[3] = all[3 * FPTT_LANES / 4];
}

FPTT_INLINE float fptt_sum(fptt_vec value) {
  float sums[4];
  fptt_sums(value, value, value, value, sums);
  return sums[0];
}

#endif

/* The first `count` lanes, the others zero; nothing else is read. */
FPTT_INLINE fptt_vec fptt_load_some(const float *from, size_t count) {
  float lanes[FPTT_LANES] = {0};
  for (size_t l = 0; l < count; l++) lanes[l] = from[l];
  return fptt_load(lanes);
}

FPTT_INLINE fptt_vec fptt_load_some_bf16(const fptt_bf16 *from, size_t count) {
  float lanes[FPTT_LANES] = {0};
  for (size_t l = 0; l < count; l++) lanes[l] = fptt_widen(from[l]);
  return fptt_load(lanes);
}

#if FPTT_ACTIVATION_BF16
#define FPTT_LOAD_A fptt_load_bf16
#define FPTT_LOAD_SOME_A fptt_load_some_bf16
#else
#define FPTT_LOAD_A fptt_load
#define FPTT_LOAD_SOME_A fptt_load_some
#endif
#if FPTT_PARAMETER_BF16
#define FPTT_LOAD_P fptt_load_bf16
#define FPTT_LOAD_SOME_P fptt_load_some_bf16
#else
#define FPTT_LOAD_P fptt_load
#define FPTT_LOAD_SOME_P fptt_load_some
#endif

#endif
