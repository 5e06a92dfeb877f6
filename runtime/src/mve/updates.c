/* `apply` of updates.c for the vectors of Armv8.1-M (Helium, MVE): SGD and momentum, alone and
 * inside the FPTT wrapper, four numbers at a time. The same operations in the same order, so the
 * same bits, but that subnormal numbers are taken and given as zero. Besides this file updates.c is
 * needed, compiled with -DFPTT_APPLY_ELSEWHERE=1: its scalar code does Adam, and what is left of
 * four.
 *
 * A multiplication by 1 changes no bit and is left out: of lambda in mode "code", of the gradient
 * without clipping. */
#define FPTT_APPLY_ELSEWHERE 1

#include <arm_mve.h>

#include "apply.h"

FPTT_INLINE float *from(void *data, size_t offset) { return data ? (float *)data + offset : NULL; }

/* As apply_loop, on lines of whole vectors. The largest |lambda'|, or |theta'| where there is no
 * lambda, goes into `most`; |theta'| beside a lambda into `size`, which forgets a NaN, but a theta'
 * that is NaN makes lambda' NaN.
 *
 * There is no predicate here on purpose: clang 19 reloads what it had to put on the stack under the
 * predicate of a loop, and so cleared lanes of `most`. */
FPTT_INLINE uint32_t lines_of(const int moment, const int wrapped, const int directed,
                              const int scaled, size_t lines, size_t width, const float *g,
                              size_t g_stride, const fptt_learned *at, size_t offset,
                              const fptt_update_rule *rule, const fptt_step *step) {
  const float alpha = rule->alpha, beta = rule->beta, keep = rule->one_minus_beta;
  const float ratio = rule->beta_over_alpha, pull = rule->pull, momentum = rule->momentum;
  const float lr = step->lr, factor = step->factor;
  const size_t next = at->stride - width, next_g = g_stride - width;
  float *theta = from(at->theta, offset), *lambda = from(at->lambda, offset);
  float *mean = from(at->mean, offset), *first = from(at->first, offset);
  uint32x4_t most = vdupq_n_u32(0);
  float32x4_t size = vdupq_n_f32(0.0f);
  for (; lines; lines--) {
    for (size_t left = width / 4; left; left--) {
      const float32x4_t old = vldrwq_f32(theta);
      float32x4_t d = vldrwq_f32(g), lam = d, m = d;
      if (wrapped) {
        lam = vldrwq_f32(lambda);
        m = vldrwq_f32(mean);
        if (scaled) lam = vmulq_n_f32(lam, pull);
        if (!directed) d = vaddq_f32(d, vsubq_f32(vmulq_n_f32(vsubq_f32(old, m), alpha), lam));
      }
      if (scaled) d = vmulq_n_f32(d, factor);
      if (moment) {
        d = vaddq_f32(vmulq_n_f32(vldrwq_f32(first), momentum), d);
        vstrwq_f32(first, d);
        first += 4;
      }
      const float32x4_t new = vsubq_f32(old, vmulq_n_f32(d, lr));
      vstrwq_f32(theta, new);
      if (wrapped) {
        lam = vsubq_f32(lam, vmulq_n_f32(vsubq_f32(new, m), alpha));
        m = vaddq_f32(vmulq_n_f32(m, keep), vmulq_n_f32(new, beta));
        m = vsubq_f32(m, vmulq_n_f32(lam, ratio));
        vstrwq_f32(lambda, lam);
        vstrwq_f32(mean, m);
        lambda += 4, mean += 4;
        size = vmaxnmaq_f32(size, new);
      }
      most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(wrapped ? lam : new)));
      theta += 4, g += 4;
    }
    theta += next, g += next_g;
    if (wrapped) lambda += next, mean += next;
    if (moment) first += next;
  }
  return vmaxvq_u32(fptt_bits(vmaxnmavq_f32(0.0f, size)), most);
}

uint32_t FPTT_KERNEL(apply_lines)(size_t lines, size_t width, const float *g, size_t g_stride,
                                  const fptt_learned *at, size_t offset,
                                  const fptt_update_rule *rule, const fptt_step *step) {
  const int moment = rule->optimizer == FPTT_MOMENTUM, adam = rule->optimizer == FPTT_ADAM;
  const size_t whole = adam ? 0 : width - width % 4;
  uint32_t largest = 0;
#define FPTT_LINES(wrapped, directed, scaled)                                                      \
  largest = moment ? lines_of(1, wrapped, directed, scaled, lines, whole, g, g_stride, at, offset, \
                              rule, step)                                                          \
                   : lines_of(0, wrapped, directed, scaled, lines, whole, g, g_stride, at, offset, \
                              rule, step)
  if (!whole) {
  } else if (!rule->wrapped) {
    FPTT_LINES(0, 0, 1);
  } else if (rule->directed) {
    FPTT_LINES(1, 1, 1);
  } else if (step->factor != 1.0f || rule->pull != 1.0f) {
    FPTT_LINES(1, 0, 1);
  } else {
    FPTT_LINES(1, 0, 0);
  }
#undef FPTT_LINES
  for (size_t line = 0; whole < width && line < lines; line++) {
    uint32_t bits = FPTT_KERNEL(apply_scalar)(width - whole, g + line * g_stride + whole, at,
                                              offset + line * at->stride + whole, rule, *step);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

uint32_t FPTT_KERNEL(apply)(size_t n, const float *g, const fptt_learned *at, size_t offset,
                            const fptt_update_rule *rule, fptt_step step) {
  return FPTT_KERNEL(apply_lines)(1, n, g, 0, at, offset, rule, &step);
}
