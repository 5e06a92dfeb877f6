/* Sigmoid and tanh for processors that compute one number at a time and multiply and add in one
   instruction: RISC-V with F, Cortex-M4F. Chosen by FPTT_FUSED=1; without it FPTT_SIGMOID, FPTT_TANH
   and FPTT_SQRT are the functions of fptt_math.h.

   The fewest instructions instead of the same bits everywhere. Every fused operation is written out,
   so with -ffp-contract=off all targets that are compiled this way still compute the same bits as
   each other.

             largest error    instructions an element of a loop over an array, all counted
   sigmoid   2.71 ulp         RISC-V 20, Cortex-M4 26 (gcc 12 -O2)
   tanh      2.59 ulp         RISC-V 22, Cortex-M4 27

   The edges are those of fptt_math.h: sigmoid in [0, 1], 0 below 2^-126; tanh in [-1, 1], tanh(+-0) =
   +-0, accurate for tiny x; NaN gives NaN. From one float to the next neither falls by more than
   2 ulp, and tanh(-x) is -tanh(x) but for the rounding. All this by tests/c/math_exhaustive.c with
   -DFPTT_FUSED=1, for all 2^32 inputs. */

#ifndef FPTT_FUSED_H
#define FPTT_FUSED_H

#include "fptt_math.h"

#if !FPTT_FUSED

#define FPTT_SIGMOID(x) fptt_sigmoid(x)
#define FPTT_TANH(x) fptt_tanh(x)
#define FPTT_SQRT(x) fptt_sqrt(x)

#else

#if !defined(__FMA__) && !defined(__ARM_FEATURE_FMA) && !defined(__riscv_flen)
#error "fptt_fused.h: this processor has no fused multiply-add; compile without FPTT_FUSED"
#endif

#define FPTT_SIGMOID(x) fptt_sigmoid_fused(x)
#define FPTT_TANH(x) fptt_tanh_fused(x)
/* an instruction wherever a fused one is (with -fno-math-errno), and the same bits */
#define FPTT_SQRT(x) __builtin_sqrtf(x)

/* From tools/fit_math.py. */
#define FPTT_SQUARE_A 0x1.e1eb22p+4f /* see fptt_sigmoid_fused */
#define FPTT_SQUARE_B 0x1.9785a6p+10f
#define FPTT_SQUARE_Q 0x1.697094p+8f
#define FPTT_LN2_OVER 0x1.05c61p-29f /* FPTT_LN2 - OVER = ln(2) */

/* As FPTT_ROUNDER. The low bits of the sum, less these bits, are the exponent of 2^n, or of 2^n / 2.
   Any multiple of 2^12 would do, which RISC-V loads at once; this one keeps gcc for ARM from
   subtracting it in two parts. */
#define FPTT_BITS_ROUNDER 0x4b555000u
#define FPTT_ROUNDER_127 (0x1.aaap+23f + 127.0f)
#define FPTT_ROUNDER_126 (0x1.aaap+23f + 126.0f)

/* a b + c, rounded once. */
static inline float fptt_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}

/* For large |x| and NaN. Functions of their own, lest they take registers from the short way. */
static __attribute__((noinline, cold, unused)) float fptt_sigmoid_far(float x) {
    return fptt_sigmoid(x);
}

static __attribute__((noinline, cold, unused)) float fptt_tanh_far(float x) {
    return fptt_tanh(x);
}

/* 1 / (1 + e^-x).

   As in fptt_sigmoid, with R and r both times q = 8 / B: then R = b - (r^2 - a)^2 with a = 2 A / B and
   b = a^2 + 2 q, one operation fewer. n + 127 is the exponent of 2^n and tells as well whether x is
   near enough: n from -127, where 2^n counts as 0, to 115, beyond which the denominator could
   overflow. A NaN rounds to an integer far off. */
static inline float fptt_sigmoid_fused(float x) {
    const float rounded = fptt_fma(x, -FPTT_LOG2_E, FPTT_ROUNDER_127);
    const uint32_t biased = fptt_bits(rounded) - FPTT_BITS_ROUNDER; /* n + 127 */
    if (__builtin_expect(biased > 115u + 127u, 0)) {
        return fptt_sigmoid_far(x);
    }
    const float n = rounded - FPTT_ROUNDER_127;
    const float r = fptt_fma(n, -FPTT_LN2_OVER, fptt_fma(n, FPTT_LN2, x));
    const float t = fptt_fma(r, r, -FPTT_SQUARE_A);
    const float R = fptt_fma(-t, t, FPTT_SQUARE_B);
    const float one = fptt_fma(FPTT_SQUARE_Q, r, R);
    const float other = fptt_fma(-FPTT_SQUARE_Q, r, R);
    return one / fptt_fma(fptt_float(biased << 23), other, one);
}

/* tanh(x).

   As in fptt_tanh but with x for |x|: with S = 2^n, n = round(2 x / ln 2), and p = R + r,

       tanh(x) = ((S - 1)/2 p + r) / ((S + 1)/2 p - r).

   This cannot leave [-1, 1]: numerator and denominator differ by p - 2 r > 0, their sum is S p > 0, and
   rounding keeps the order. 1 is added last, for R itself is rounded too coarsely. */
static inline float fptt_tanh_fused(float x) {
    const float rounded = fptt_fma(x, 2.0f * FPTT_LOG2_E, FPTT_ROUNDER_126);
    const uint32_t biased = fptt_bits(rounded) - FPTT_BITS_ROUNDER; /* n + 126 */
    if (__builtin_expect(biased > 125u + 126u, 0)) {
        return fptt_tanh_far(x);
    }
    const float n = rounded - FPTT_ROUNDER_126;
    const float r = fptt_fma(n, -0.5f * FPTT_LN2, x);
    const float square = r * r;
    const float p = 1.0f + fptt_fma(square, fptt_fma(-FPTT_COTH_B, square, FPTT_COTH_A), r);
    const float half = fptt_float(biased << 23); /* S / 2; below not half - 0.5f: for x = -0 */
    return fptt_fma(-(0.5f - half), p, r) / fptt_fma(half + 0.5f, p, -r);
}

#endif
#endif
