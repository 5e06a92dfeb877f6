/* cells.c for the vectors of Armv8.1-M (Helium, MVE): four units at a time, the last ones under a
 * predicate. The same operations in the same order as in cells.c and fptt_math.h, so the same bits;
 * only subnormal numbers differ, which these vectors take and give as zero.
 *
 * The vectors have no division. Four scalar ones work on the same registers without a move.
 *
 * Gates run array by array, so that the constants of one function stay in registers. */
#include <arm_mve.h>

#include "apply.h"

/* A loop over `count` units from j on, four at a time: `lanes` says which ones count. clang makes a
 * tail-predicated loop of it, without an instruction for the predicate. */
#define FPTT_UNITS(j, count, lanes)                                                       \
  for (int32_t j = 0, left = (int32_t)(count); left > 0; left -= 4, j += 4)               \
    for (mve_pred16_t lanes = vctp32q((uint32_t)left), once = 1; once; once = 0)

FPTT_INLINE float32x4_t divided(float32x4_t a, float32x4_t b) {
  float32x4_t y = a;
  y = vsetq_lane_f32(vgetq_lane_f32(a, 0) / vgetq_lane_f32(b, 0), y, 0);
  y = vsetq_lane_f32(vgetq_lane_f32(a, 1) / vgetq_lane_f32(b, 1), y, 1);
  y = vsetq_lane_f32(vgetq_lane_f32(a, 2) / vgetq_lane_f32(b, 2), y, 2);
  y = vsetq_lane_f32(vgetq_lane_f32(a, 3) / vgetq_lane_f32(b, 3), y, 3);
  return y;
}

#define FPTT_BITS_MINUS_INF 0xff800000u

/* Numbers that the compiler shall not fold: with both signs, or on both sides of a comparison, they
 * would take two registers. `beyond`, added to the bits of -Inf, gives the largest number, to those
 * of a NaN a small one. */
typedef struct {
  float rounder;
  uint32_t beyond;
} opaque;

FPTT_INLINE opaque opaque_numbers(void) {
  opaque numbers = {FPTT_ROUNDER, ~FPTT_BITS_MINUS_INF};
  __asm__("" : "+r"(numbers.rounder), "+r"(numbers.beyond));
  return numbers;
}

/* fptt_sigmoid, line by line. */
FPTT_INLINE float32x4_t sigmoid(float32x4_t x, opaque with) {
  const float32x4_t below = vdupq_m_n_f32(x, 88.0f, vcmpgtq_n_f32(x, 88.0f));
  const float32x4_t rounded = vaddq_n_f32(vmulq_n_f32(below, -FPTT_LOG2_E), with.rounder);
  const float32x4_t n = vsubq_n_f32(rounded, with.rounder);
  const float32x4_t r = vaddq_f32(vaddq_f32(below, vmulq_n_f32(n, FPTT_LN2_HI)),
                                  vmulq_n_f32(n, FPTT_LN2_LO));
  const float32x4_t square = vmulq_f32(r, r);
  const float32x4_t slope =
      vaddq_n_f32(vmulq_n_f32(square, -0.125f * FPTT_COTH_B), 0.5f * FPTT_COTH_A);
  const float32x4_t R = vaddq_n_f32(vmulq_f32(square, slope), 2.0f);
  const float32x4_t scale = vreinterpretq_f32_u32(
      vaddq_n_u32(vshlq_n_u32(vreinterpretq_u32_f32(rounded), 23), FPTT_BITS_1));
  const float32x4_t one = vaddq_f32(R, r);
  const float32x4_t all = vaddq_f32(one, vmulq_f32(scale, vsubq_f32(R, r)));
  /* Zero where x < EXP_MIN; as integers, for to these vectors NaN, too, is less. */
  const uint32x4_t low = vaddq_n_u32(vreinterpretq_u32_f32(x), with.beyond);
  const uint32x4_t y = vreinterpretq_u32_f32(divided(one, all));
  return vreinterpretq_f32_u32(
      veorq_m_u32(y, y, y, vcmphiq_n_u32(low, fptt_bits(FPTT_EXP_MIN) + ~FPTT_BITS_MINUS_INF)));
}

/* fptt_tanh, line by line. */
FPTT_INLINE float32x4_t tanh_of(float32x4_t x, opaque with) {
  const float32x4_t size = vabsq_f32(x);
  const float32x4_t below = vdupq_m_n_f32(size, 9.125f, vcmpgtq_n_f32(size, 9.125f));
  const float32x4_t rounded = vaddq_n_f32(vmulq_n_f32(below, 2.0f * FPTT_LOG2_E), with.rounder);
  const float32x4_t n = vsubq_n_f32(rounded, with.rounder);
  const float32x4_t r = vmulq_n_f32(
      vsubq_f32(below, vmulq_n_f32(n, 0.5f * FPTT_LN2)), FPTT_TANH_SCALE);
  const float32x4_t square = vmulq_f32(r, r);
  const float32x4_t rest =
      vmulq_f32(square, vaddq_n_f32(vmulq_n_f32(square, -FPTT_TANH_B), FPTT_TANH_A));
  const float32x4_t half = vaddq_n_f32(
      vreinterpretq_f32_u32(
          vaddq_n_u32(vshlq_n_u32(vreinterpretq_u32_f32(rounded), 23), FPTT_BITS_HALF)),
      -0.5f);
  const float32x4_t w =
      vaddq_f32(vmulq_f32(half, vaddq_n_f32(vaddq_f32(rest, r), FPTT_TANH_SCALE)), r);
  const float32x4_t y = divided(w, vaddq_f32(w, vaddq_n_f32(vsubq_f32(rest, r), FPTT_TANH_SCALE)));
  return vnegq_m_f32(y, y, vcmpltq_n_s32(vreinterpretq_s32_f32(x), 0)); /* -0 has a sign, too */
}

/* y(1 - y) */
FPTT_INLINE float32x4_t both_ways(float32x4_t y) {
  return vmulq_f32(y, vaddq_n_f32(vnegq_f32(y), 1.0f));
}

/* 1 - y^2 */
FPTT_INLINE float32x4_t without_square(float32x4_t y) {
  return vaddq_n_f32(vnegq_f32(vmulq_f32(y, y)), 1.0f);
}

static __attribute__((noinline)) void sigmoids(size_t n, const float *x, float *y) {
  const opaque with = opaque_numbers();
  FPTT_UNITS(j, n, lanes) {
    vstrwq_p_f32(y + j, sigmoid(vldrwq_z_f32(x + j, lanes), with), lanes);
  }
}

static __attribute__((noinline)) void tanhs(size_t n, const float *x, float *y) {
  const opaque with = opaque_numbers();
  FPTT_UNITS(j, n, lanes) {
    vstrwq_p_f32(y + j, tanh_of(vldrwq_z_f32(x + j, lanes), with), lanes);
  }
}

void FPTT_KERNEL(lstm_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows c_before,
                               fptt_rows gates, fptt_rows c, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const float *in = fptt_row(a, r), *before = fptt_row(c_before, r);
    float *i = fptt_row(gates, r), *cell = fptt_row(c, r), *state = fptt_row(h, r);
    const float *f = i + hidden, *g = f + hidden, *o = g + hidden;
    sigmoids(2 * hidden, in, i);
    tanhs(hidden, in + 2 * hidden, i + 2 * hidden);
    sigmoids(hidden, in + 3 * hidden, i + 3 * hidden);
    FPTT_UNITS(j, hidden, lanes) {
      float32x4_t kept = vmulq_f32(vldrwq_z_f32(f + j, lanes), vldrwq_z_f32(before + j, lanes));
      float32x4_t new = vmulq_f32(vldrwq_z_f32(i + j, lanes), vldrwq_z_f32(g + j, lanes));
      vstrwq_p_f32(cell + j, vaddq_f32(kept, new), lanes);
    }
    tanhs(hidden, cell, state);
    FPTT_UNITS(j, hidden, lanes) {
      float32x4_t squashed = vldrwq_z_f32(state + j, lanes);
      vstrwq_p_f32(state + j, vmulq_f32(vldrwq_z_f32(o + j, lanes), squashed), lanes);
    }
  }
}

/* Units whose tanh(c) waits on the stack. */
#define FPTT_PIECE 64

/* Few arrays a loop, lest their addresses leave the registers. `next` holds the gradient of c until
 * the last loop. */
static void lstm_backward_piece(size_t count, size_t hidden, const float *i, const float *before,
                                const float *cell, const float *grad_h, const float *grad_c,
                                float *out, float *next) {
  float tanh_c[FPTT_PIECE];
  const float *f = i + hidden, *g = f + hidden, *o = g + hidden;
  float *out_f = out + hidden, *out_g = out_f + hidden, *out_o = out_g + hidden;
  tanhs(count, cell, tanh_c);
  FPTT_UNITS(j, count, lanes) {
    const float32x4_t squashed = vldrwq_z_f32(tanh_c + j, lanes);
    const float32x4_t by_h = vldrwq_z_f32(grad_h + j, lanes), open = vldrwq_z_f32(o + j, lanes);
    const float32x4_t by_c = vmulq_f32(vmulq_f32(by_h, open), without_square(squashed));
    vstrwq_p_f32(next + j, vaddq_f32(vldrwq_z_f32(grad_c + j, lanes), by_c), lanes);
    vstrwq_p_f32(out_o + j, vmulq_f32(vmulq_f32(by_h, squashed), both_ways(open)), lanes);
  }
  FPTT_UNITS(j, count, lanes) {
    const float32x4_t by_c = vldrwq_z_f32(next + j, lanes), in = vldrwq_z_f32(i + j, lanes);
    const float32x4_t new = vldrwq_z_f32(g + j, lanes);
    vstrwq_p_f32(out + j, vmulq_f32(vmulq_f32(by_c, new), both_ways(in)), lanes);
    vstrwq_p_f32(out_g + j, vmulq_f32(vmulq_f32(by_c, in), without_square(new)), lanes);
  }
  FPTT_UNITS(j, count, lanes) {
    const float32x4_t by_c = vldrwq_z_f32(next + j, lanes), keep = vldrwq_z_f32(f + j, lanes);
    const float32x4_t by_f = vmulq_f32(by_c, vldrwq_z_f32(before + j, lanes));
    vstrwq_p_f32(out_f + j, vmulq_f32(by_f, both_ways(keep)), lanes);
    vstrwq_p_f32(next + j, vmulq_f32(by_c, keep), lanes);
  }
}

void FPTT_KERNEL(lstm_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows c_before,
                                fptt_rows c, fptt_rows dh, fptt_rows dc, fptt_rows da,
                                fptt_rows dc_before) {
  for (size_t r = 0; r < n; r++) {
    for (size_t from = 0; from < hidden; from += FPTT_PIECE) {
      size_t count = hidden - from < FPTT_PIECE ? hidden - from : FPTT_PIECE;
      lstm_backward_piece(count, hidden, (float *)fptt_row(gates, r) + from,
                          (float *)fptt_row(c_before, r) + from, (float *)fptt_row(c, r) + from,
                          (float *)fptt_row(dh, r) + from, (float *)fptt_row(dc, r) + from,
                          (float *)fptt_row(da, r) + from, (float *)fptt_row(dc_before, r) + from);
    }
  }
}

void FPTT_KERNEL(gru_forward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                              fptt_rows gates_out, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const float *in = fptt_row(gates, r), *before = fptt_row(h_before, r);
    float *out = fptt_row(gates_out, r), *state = fptt_row(h, r), *candidate = out + 2 * hidden;
    sigmoids(2 * hidden, in, out);
    FPTT_UNITS(j, hidden, lanes) {
      const float32x4_t q = vldrwq_z_f32(in + 3 * hidden + j, lanes);
      const float32x4_t reset = vmulq_f32(vldrwq_z_f32(out + j, lanes), q);
      const float32x4_t a = vldrwq_z_f32(in + 2 * hidden + j, lanes);
      vstrwq_p_f32(out + 3 * hidden + j, q, lanes);
      vstrwq_p_f32(candidate + j, vaddq_f32(a, reset), lanes);
    }
    tanhs(hidden, candidate, candidate);
    FPTT_UNITS(j, hidden, lanes) {
      const float32x4_t z = vldrwq_z_f32(out + hidden + j, lanes);
      float32x4_t new = vaddq_n_f32(vnegq_f32(z), 1.0f);
      new = vmulq_f32(new, vldrwq_z_f32(candidate + j, lanes));
      new = vaddq_f32(new, vmulq_f32(z, vldrwq_z_f32(before + j, lanes)));
      vstrwq_p_f32(state + j, new, lanes);
    }
  }
}

void FPTT_KERNEL(gru_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                               fptt_rows dh, fptt_rows da, fptt_rows dh_before) {
  for (size_t r = 0; r < n; r++) {
    const float *in = fptt_row(gates, r), *before = fptt_row(h_before, r);
    const float *grad = fptt_row(dh, r);
    float *out = fptt_row(da, r), *next = fptt_row(dh_before, r);
    FPTT_UNITS(j, hidden, lanes) {
      float32x4_t reset = vldrwq_z_f32(in + j, lanes), z = vldrwq_z_f32(in + hidden + j, lanes);
      float32x4_t candidate = vldrwq_z_f32(in + 2 * hidden + j, lanes);
      float32x4_t q = vldrwq_z_f32(in + 3 * hidden + j, lanes);
      float32x4_t by_h = vldrwq_z_f32(grad + j, lanes);
      float32x4_t by_n = vmulq_f32(by_h, vaddq_n_f32(vnegq_f32(z), 1.0f));
      by_n = vmulq_f32(by_n, without_square(candidate));
      float32x4_t by_z = vsubq_f32(vldrwq_z_f32(before + j, lanes), candidate);
      by_z = vmulq_f32(vmulq_f32(by_h, by_z), both_ways(z));
      vstrwq_p_f32(next + j, vmulq_f32(by_h, z), lanes);
      vstrwq_p_f32(out + j, vmulq_f32(vmulq_f32(by_n, q), both_ways(reset)), lanes);
      vstrwq_p_f32(out + hidden + j, by_z, lanes);
      vstrwq_p_f32(out + 2 * hidden + j, by_n, lanes);
      vstrwq_p_f32(out + 3 * hidden + j, vmulq_f32(by_n, reset), lanes);
    }
  }
}

void FPTT_KERNEL(rnn_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows h) {
  for (size_t r = 0; r < n; r++) tanhs(hidden, fptt_row(a, r), fptt_row(h, r));
}

void FPTT_KERNEL(rnn_backward)(size_t n, size_t hidden, fptt_rows y, fptt_rows dh, fptt_rows da) {
  for (size_t r = 0; r < n; r++) {
    const float *state = fptt_row(y, r), *grad = fptt_row(dh, r);
    float *out = fptt_row(da, r);
    FPTT_UNITS(j, hidden, lanes) {
      float32x4_t value = vldrwq_z_f32(state + j, lanes);
      value = vmulq_f32(vldrwq_z_f32(grad + j, lanes), without_square(value));
      vstrwq_p_f32(out + j, value, lanes);
    }
  }
}
