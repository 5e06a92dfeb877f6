/* What a kernel file is compiled for. Set from outside:
 *
 *   FPTT_SUFFIX          added to every kernel's name, so that several builds live side by side
 *   FPTT_LANES           floats of a vector, 1 for plain scalar code
 *   FPTT_REGISTERS       vector registers of the machine
 *   FPTT_FUSED           1 for a processor that computes one number at a time and multiplies and
 *                        adds in one instruction: see fptt_fused.h, and cells_fused.c in place of
 *                        cells.c
 *   FPTT_ACTIVATION_BF16, FPTT_PARAMETER_BF16   1 where these are stored as bfloat16
 */
#ifndef FPTT_TARGET_H
#define FPTT_TARGET_H

#include <string.h>

#include "fptt_math.h"
#include "kernels.h"

#ifndef FPTT_LANES
#if defined(__AVX512F__)
#define FPTT_LANES 16
#define FPTT_REGISTERS 32
#elif defined(__AVX__)
#define FPTT_LANES 8
#define FPTT_REGISTERS 16
#elif defined(__SSE2__)
#define FPTT_LANES 4
#define FPTT_REGISTERS 16
#elif defined(__aarch64__) /* NEON of 32-bit ARM flushes subnormals */
#define FPTT_LANES 4
#define FPTT_REGISTERS 32
#else
#define FPTT_LANES 1
#define FPTT_REGISTERS 32
#endif
#endif

#ifdef FPTT_SUFFIX
#define FPTT_JOIN_(name, suffix) fptt_##name##suffix
#define FPTT_JOIN(name, suffix) FPTT_JOIN_(name, suffix)
#define FPTT_KERNEL(name) FPTT_JOIN(name, FPTT_SUFFIX)
#else
#define FPTT_PLAIN_(name) fptt_##name
#define FPTT_KERNEL(name) FPTT_PLAIN_(name)
#endif

#define FPTT_KERNEL_PROTOTYPE(result, name, arguments) result FPTT_KERNEL(name) arguments;
FPTT_KERNEL_LIST(FPTT_KERNEL_PROTOTYPE)
#undef FPTT_KERNEL_PROTOTYPE

/* Not a kernel of the table, but called from one family to another: an update of n numbers that
 * start at element `offset`, along g. Answers with the largest |new value|, as bits.
 *
 * With FPTT_FUSED, here and in all kernels that answer so, it is the root of the sum of the squares
 * of what one call looked at: at least the largest (of values above 1e-19), at most sqrt(2 n) times
 * it for n numbers, Inf already where one is above 1e19, NaN where one is NaN. Limits are compared
 * with it just as well: they are far from what healthy training reaches. */
uint32_t FPTT_KERNEL(apply)(size_t n, const float *g, const fptt_learned *at, size_t offset,
                            const fptt_update_rule *rule, fptt_step step);
#if FPTT_APPLY_ELSEWHERE /* see updates.c */
uint32_t FPTT_KERNEL(apply_scalar)(size_t n, const float *g, const fptt_learned *at, size_t offset,
                                   const fptt_update_rule *rule, fptt_step step);
#endif

#define FPTT_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define FPTT_UNROLL
#if FPTT_LANES > 1
#define FPTT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define FPTT_INDEPENDENT /* one number at a time: it would warn that there are no vectors */
#endif
#else
/* before a loop of few, known turns over registers */
#define FPTT_UNROLL _Pragma("GCC unroll 8")
/* before a loop whose turns do not depend on each other, though arrays may be the same memory */
#define FPTT_INDEPENDENT _Pragma("GCC ivdep")
#endif

typedef uint16_t fptt_bf16;

FPTT_INLINE float fptt_widen(fptt_bf16 value) {
  return fptt_float((uint32_t)value << 16);
}

/* To nearest, ties to even; NaN stays NaN, overflow becomes Inf. */
FPTT_INLINE fptt_bf16 fptt_narrow(float value) {
  uint32_t bits = fptt_bits(value);
  uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  uint32_t quiet = (bits >> 16) | 0x0040u;
  return (fptt_bf16)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
}

/* Up or down at random, so that the mean of many is the value itself; NaN and Inf stay. */
FPTT_INLINE fptt_bf16 fptt_narrow_random(float value, uint32_t noise) {
  uint32_t bits = fptt_bits(value);
  uint32_t rounded = (bits + (noise & 0xFFFFu)) >> 16;
  uint32_t special = (bits >> 16) | ((bits & 0x7FFFFFu) ? 0x0040u : 0u);
  return (fptt_bf16)((bits & 0x7FFFFFFFu) >= 0x7F800000u ? special : rounded);
}

#if FPTT_ACTIVATION_BF16
typedef fptt_bf16 fptt_activation;
#define FPTT_GET_A(value) fptt_widen(value)
#define FPTT_PUT_A(value) fptt_narrow(value)
#else
typedef float fptt_activation;
#define FPTT_GET_A(value) (value)
#define FPTT_PUT_A(value) (value)
#endif

#if FPTT_PARAMETER_BF16
typedef fptt_bf16 fptt_parameter;
#define FPTT_GET_P(value) fptt_widen(value)
#define FPTT_PUT_P(value) fptt_narrow(value)
#else
typedef float fptt_parameter;
#define FPTT_GET_P(value) (value)
#define FPTT_PUT_P(value) (value)
#endif

/* Row r of rows of activations. */
FPTT_INLINE fptt_activation *fptt_row(fptt_rows rows, size_t r) {
  return (fptt_activation *)rows.data + r * rows.stride;
}

#endif
