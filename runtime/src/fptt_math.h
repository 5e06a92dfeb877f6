/* Elementary functions in float32: the same bits on every target.

   exp, log, sqrt, tanh and sigmoid from + - * / on float and from integer operations, and nothing
   else: no libm, no tables, no square root of the processor, no fused multiply-add. IEEE 754 fixes
   the result of each of these operations, so every target with IEEE float32, subnormal numbers and
   rounding to nearest computes the same bits, one at a time or in vectors. (Only which NaN comes
   out is not fixed.) This needs a compiler that leaves the operations alone: -ffp-contract=off,
   never -ffast-math, and no mode of the processor that flushes subnormal numbers.

   There are no branches, only choices between two values: a plain loop over an array vectorises
   (gcc and clang, -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math).

              largest error    operations, of them /    at the edges (NaN always gives NaN)
   exp        1.68 ulp         18, 1                    +Inf beyond FLT_MAX, 0 below 2^-126
   sigmoid    2.44 ulp         19, 1                    in [0, 1] always, 0 below 2^-126
   tanh       2.88 ulp         24, 1                    in [-1, 1] always, tanh(-x) = -tanh(x)
   log        0.96 ulp         22, 1                    log(0) = -Inf, log(x < 0) = NaN
   sqrt       0.5 ulp          30, 0                    correctly rounded; sqrt(x < 0) = NaN

   Errors are in units in the last place of the exact result: the largest over all 2^32 inputs
   against libm in float64, by tests/c/math_exhaustive.c. All five are monotone there to 1 ulp: from
   one float to the next the result never falls by more. Operations are those on floats and
   integers, without the comparisons and choices at the edges. tools/fit_math.py finds the
   coefficients.

   exp, sigmoid and tanh share one kernel. With R(r) = r coth(r), which is even and almost constant
   on the reduced range, so that it needs two coefficients,

       tanh(r) = r / R(r)        exp(2 r) = (R(r) + r) / (R(r) - r). */

#ifndef FPTT_MATH_H
#define FPTT_MATH_H

#include <float.h>
#include <stdint.h>

#ifdef __FAST_MATH__
#error "fptt_math.h: -ffast-math reorders sums; compile without it"
#endif
#if FLT_EVAL_METHOD != 0
#error "fptt_math.h: float must be computed in float (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif
_Static_assert(sizeof(float) == 4 && FLT_MANT_DIG == 24 && FLT_MAX_EXP == 128, "IEEE float32");
_Static_assert((-1 >> 1) == -1, "right shift of negative integers keeps the sign");

/* From tools/fit_math.py. */
#define FPTT_COTH_A 0x1.55551ep-2f /* r coth(r) = 1 + A r^2 - B r^4 to 2.3e-9, |r| <= ln(2)/4 */
#define FPTT_COTH_B 0x1.6aa37ap-6f
#define FPTT_TANH_SCALE 0x1.bp-1f /* c = 27/32: see fptt_tanh */
#define FPTT_TANH_A 0x1.948acep-2f /* A / c, B / c^3 */
#define FPTT_TANH_B 0x1.2ddba4p-5f
#define FPTT_ATANH_A 0x1.55557ap-1f /* 2 atanh(s)/s = 2 + A s^2 + B s^4 + C s^6 to 2e-9, */
#define FPTT_ATANH_B 0x1.995ed6p-2f /* |s| <= (sqrt(2) - 1)^2 */
#define FPTT_ATANH_C 0x1.31e08p-2f
#define FPTT_LOG2_E 0x1.715476p+0f
#define FPTT_LN2 0x1.62e43p-1f
#define FPTT_LN2_HI 0x1.62e4p-1f /* HI + LO = ln(2); n HI is exact for |n| <= 256 */
#define FPTT_LN2_LO 0x1.7f7d1cp-20f

#define FPTT_ROUNDER 0x1.8p+23f /* adding it rounds to an integer, in the low bits of the sum */
#define FPTT_EXP_MIN (-0x1.5d589ep+6f) /* the smallest x with exp(x) >= 2^-126 */
#define FPTT_EXP_MAX 0x1.62e42ep+6f /* the largest x with exp(x) <= FLT_MAX */
#define FPTT_BITS_1 0x3f800000u /* 1.0f */
#define FPTT_BITS_HALF 0x3f000000u /* 0.5f */
#define FPTT_BITS_SQRT_HALF 0x3f3504f3u /* sqrt(1/2) */

/* The bits of a float. */
static inline uint32_t fptt_bits(float value) {
    union {
        float value;
        uint32_t bits;
    } both;
    both.value = value;
    return both.bits;
}

/* The float of some bits. */
static inline float fptt_float(uint32_t bits) {
    union {
        uint32_t bits;
        float value;
    } both;
    both.bits = bits;
    return both.value;
}

/* e^x.

   With n = round(x / ln 2) and r = x - n ln 2, |r| <= ln(2)/2: e^x = 2^n (R + r) / (R - r), where
   R = r coth(r/2). The power of two goes into the exponent bits.

   +Inf for x > 88.7228 (e^x > FLT_MAX), +0 for x < -87.3365 (e^x < 2^-126): results are never
   subnormal. exp(+-0) = 1. */
static inline float fptt_exp(float x) {
    const float rounded = x * FPTT_LOG2_E + FPTT_ROUNDER;
    const float n = rounded - FPTT_ROUNDER;
    const float r = (x - n * FPTT_LN2_HI) - n * FPTT_LN2_LO;
    const float square = r * r;
    const float R = 2.0f + square * (0.5f * FPTT_COTH_A - 0.125f * FPTT_COTH_B * square);
    const float power = (R + r) / (R - r);
    const float scaled = fptt_float(fptt_bits(power) + (fptt_bits(rounded) << 23));
    const float infinite = x + fptt_float(0x7f800000u); /* +Inf, or NaN for NaN */
    const float high = x <= FPTT_EXP_MAX ? scaled : infinite;
    return x < FPTT_EXP_MIN ? 0.0f : high;
}

/* 1 / (1 + e^-x), with relative accuracy in both tails.

   As in exp, e^-x = 2^n (R - r) / (R + r) with r = x + n ln 2; so sigmoid(x) =
   (R + r) / ((R + r) + 2^n (R - r)), which cannot leave [0, 1].

   +0 for x < -87.3365 (sigmoid(x) < 2^-126): results are never subnormal. sigmoid(0) = 1/2. */
static inline float fptt_sigmoid(float x) {
    const float below = x > 88.0f ? 88.0f : x; /* sigmoid(88) = 1 in float32 */
    const float rounded = below * -FPTT_LOG2_E + FPTT_ROUNDER;
    const float n = rounded - FPTT_ROUNDER;
    const float r = (below + n * FPTT_LN2_HI) + n * FPTT_LN2_LO;
    const float square = r * r;
    const float R = 2.0f + square * (0.5f * FPTT_COTH_A - 0.125f * FPTT_COTH_B * square);
    const float scale = fptt_float((fptt_bits(rounded) << 23) + FPTT_BITS_1);
    const float one = R + r;
    const float y = one / (one + scale * (R - r));
    return x < FPTT_EXP_MIN ? 0.0f : y;
}

/* tanh(x), with relative accuracy near 0.

   With n = round(2 |x| / ln 2), r = |x| - n ln(2)/2 and R = r coth(r): e^(2 |x|) =
   2^n (R + r) / (R - r), and so tanh |x| = w / (w + (R - r)) with w = (2^n - 1)/2 (R + r) + r.
   Because r < R, this cannot exceed 1. R and r are both taken times c: it cancels, but it decides
   where w + (R - r) crosses a power of two, and with c = 1 the result falls by 2 ulp at 53 places.
   R - c is added last, for R itself is rounded too coarsely.

   +-1 from |x| = 9.02 on. tanh(+-0) = +-0, and tanh(x) keeps its accuracy for tiny x. */
static inline float fptt_tanh(float x) {
    const uint32_t sign = fptt_bits(x) & 0x80000000u;
    const float size = fptt_float(fptt_bits(x) & 0x7fffffffu);
    const float below = size > 9.125f ? 9.125f : size; /* tanh(9.125) = 1 in float32 */
    const float rounded = below * (2.0f * FPTT_LOG2_E) + FPTT_ROUNDER;
    const float n = rounded - FPTT_ROUNDER;
    const float r = (below - n * (0.5f * FPTT_LN2)) * FPTT_TANH_SCALE;
    const float square = r * r;
    const float rest = square * (FPTT_TANH_A - FPTT_TANH_B * square); /* R - c */
    const float half = fptt_float((fptt_bits(rounded) << 23) + FPTT_BITS_HALF) - 0.5f;
    const float w = half * (FPTT_TANH_SCALE + (rest + r)) + r;
    return fptt_float(fptt_bits(w / (w + (FPTT_TANH_SCALE + (rest - r)))) | sign);
}

/* The natural logarithm, with relative accuracy near x = 1.

   x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); with s = f / (2 + f), log(1 + f) =
   2 atanh(s) = f - s (f - s^2 P(s^2)); log(x) = k ln 2 + log(1 + f).

   log(+-0) = -Inf, log(x < 0) = NaN, log(+Inf) = +Inf. Subnormal x: right, as all others. */
static inline float fptt_log(float x) {
    const int tiny = x < FLT_MIN;
    const float normal = tiny ? x * 0x1p+23f : x;
    const uint32_t origin = tiny ? FPTT_BITS_SQRT_HALF + (23u << 23) : FPTT_BITS_SQRT_HALF;
    const uint32_t distance = fptt_bits(normal) - origin;
    const float k = (float)((int32_t)distance >> 23);
    const float f = fptt_float((distance & 0x007fffffu) + FPTT_BITS_SQRT_HALF) - 1.0f;
    const float s = f / (f + 2.0f);
    const float square = s * s;
    const float P = FPTT_ATANH_A + square * (FPTT_ATANH_B + square * FPTT_ATANH_C);
    const float y = k * FPTT_LN2_HI + (f - (s * (f - square * P) - k * FPTT_LN2_LO));
    const float finite = x <= FLT_MAX ? y : x; /* +Inf and NaN stay */
    const float edge = fptt_float(x < 0.0f ? 0x7fc00000u : 0xff800000u); /* NaN, -Inf */
    return x <= 0.0f ? edge : finite;
}

/* The square root, correctly rounded: the bits of IEEE squareRoot.

   v is x times an even power of two, far from overflow and underflow. Three Newton steps from an
   integer estimate give y = 1/sqrt(v). Then s = v y, its high half a and its low half b:
   v - s^2 = v - a^2 - 2 a b - b^2 has no rounding in its products, and s + (v - s^2) y / 2 is the
   root. That the last rounding is always the right one is not proved but tested, for every float.

   sqrt(+-0) = +-0, sqrt(x < 0) = NaN, sqrt(+Inf) = +Inf. Subnormal x: right, as all others. */
static inline float fptt_sqrt(float x) {
    const int small = x < 1.0f;
    const float v = x * (small ? 0x1p+96f : 0x1p-32f);
    const float unscale = small ? 0x1p-48f : 0x1p+16f;
    const float half = 0.5f * v;
    const float y0 = fptt_float(0x5f37642fu - (fptt_bits(v) >> 1)); /* within 3.5 % */
    const float y1 = y0 * (1.5f - half * y0 * y0);
    const float y2 = y1 * (1.5f - half * y1 * y1);
    const float y = y2 * (1.5f - half * y2 * y2);
    const float s = v * y;
    const float a = fptt_float(fptt_bits(s) & 0xfffff000u);
    const float b = s - a;
    const float rest = ((v - a * a) - (a + a) * b) - b * b;
    const float root = (s + rest * (0.5f * y)) * unscale;
    const float edge = x < 0.0f ? fptt_float(0x7fc00000u) : x; /* NaN; zeros, +Inf, NaN stay */
    return ((x > 0.0f) & (x <= FLT_MAX)) ? root : edge;
}

#endif
