/* Parameter updates: optimizers, alone and inside the FPTT wrapper, in one pass over memory. */
#include "fptt_fused.h"
#include "random.h"
#include "target.h"

/* What an update has to say about the values that it wrote. A vector has a largest; one number at a
 * time the sum of the squares takes one operation a value instead of five, and its root is a bound
 * of the largest as good as that itself (see target.h). */
#if FPTT_FUSED
typedef float fptt_watch;
FPTT_INLINE fptt_watch fptt_watched(fptt_watch seen, float value) {
  return fptt_fma(value, value, seen);
}
FPTT_INLINE fptt_watch fptt_both(fptt_watch seen, fptt_watch other) { return seen + other; }
FPTT_INLINE uint32_t fptt_seen(fptt_watch seen) { return fptt_bits(FPTT_SQRT(seen)); }
#else
FPTT_INLINE uint32_t largest_of(uint32_t largest, float value) {
  uint32_t bits = fptt_bits(value) & 0x7FFFFFFFu; /* of a NaN they are larger than those of Inf */
  return bits > largest ? bits : largest;
}

typedef uint32_t fptt_watch;
FPTT_INLINE fptt_watch fptt_watched(fptt_watch seen, float value) {
  return largest_of(seen, value);
}
FPTT_INLINE fptt_watch fptt_both(fptt_watch seen, fptt_watch other) {
  return other > seen ? other : seen;
}
FPTT_INLINE uint32_t fptt_seen(fptt_watch seen) { return seen; }
#endif

#if FPTT_PARAMETER_BF16
#define FPTT_ROUND(value, which)                                                              \
  (stochastic ? fptt_narrow_random(value, fptt_noise(step.key[which], element + (uint32_t)i * by)) \
              : fptt_narrow(value))
#else
#define FPTT_ROUND(value, which) (value)
#endif

/* The loop, with optimizer and wrapper as constants. For the formulas see `update` and
 * `fptt_update` in the op table. Watches the largest |theta'| and |lambda'|, as bits: what else
 * is remembered cannot grow without them (moments are bounded by the directions they average, and m
 * that runs away takes lambda with it at the next update). */
FPTT_INLINE uint32_t apply_loop(const fptt_optimizer optimizer, const int wrapped,
                                const int stochastic, uint32_t element, uint32_t by, size_t n,
                                const float *g, fptt_parameter *theta, fptt_parameter *lambda,
                                fptt_parameter *mean, fptt_parameter *first,
                                fptt_parameter *second, const fptt_update_rule *rule,
                                fptt_step step) {
  const float alpha = rule->alpha, beta = rule->beta, keep = rule->one_minus_beta;
  const float ratio = rule->beta_over_alpha, pull = rule->pull, momentum = rule->momentum;
  const float beta1 = rule->beta1, rest1 = rule->one_minus_beta1, epsilon = rule->epsilon;
  const float beta2 = rule->beta2, rest2 = rule->one_minus_beta2;
  const float lr = step.lr, factor = step.factor, rate = lr / step.correction1;
  const float correction2 = step.correction2;
  const int directed = rule->directed;
  fptt_watch largest = 0;
  (void)stochastic, (void)element, (void)by;
  FPTT_INDEPENDENT for (size_t i = 0; i < n; i++) {
    float old = FPTT_GET_P(theta[i]), d = g[i], new, lam = 0, m = 0;
    if (wrapped) {
      lam = FPTT_GET_P(lambda[i]) * pull;
      m = FPTT_GET_P(mean[i]);
      float pulled = d + (alpha * (old - m) - lam);
      d = directed ? d : pulled;
    }
    d *= factor;
    if (optimizer == FPTT_SGD) {
      new = old - lr * d;
    } else if (optimizer == FPTT_MOMENTUM) {
      float velocity = momentum * FPTT_GET_P(first[i]) + d;
      first[i] = FPTT_PUT_P(velocity);
      new = old - lr * velocity;
    } else {
      float moment1 = beta1 * FPTT_GET_P(first[i]) + rest1 * d;
      float moment2 = beta2 * FPTT_GET_P(second[i]) + rest2 * d * d;
      first[i] = FPTT_PUT_P(moment1);
      second[i] = FPTT_PUT_P(moment2);
      new = old - rate * moment1 / (FPTT_SQRT(moment2 / correction2) + epsilon);
    }
    theta[i] = FPTT_ROUND(new, 0);
    fptt_watch seen = fptt_watched(0, new);
    if (wrapped) {
      lam = lam - alpha * (new - m);
      m = keep * m + beta * new - ratio * lam;
      lambda[i] = FPTT_ROUND(lam, 1);
      mean[i] = FPTT_ROUND(m, 2);
      seen = fptt_watched(seen, lam);
    }
    largest = fptt_both(largest, seen); /* once a turn: with two clang would not vectorise */
  }
  return fptt_seen(largest);
}

#if FPTT_APPLY_ELSEWHERE /* a build with an apply for vectors, which calls this one for the rest */
#define FPTT_APPLY_NAME apply_scalar
#else
#define FPTT_APPLY_NAME apply
#endif

#if FPTT_FUSED
/* what is not FPTT around plain SGD: in a function of its own, so that that need not save the
 * registers of this */
#define FPTT_APPLY_ANY static __attribute__((noinline)) uint32_t apply_any

/* ARM's fused operation overwrites what it adds to. gcc puts off a difference that then needs both
 * copied; this makes it compute the value where it stands. */
#if defined(__arm__)
#define FPTT_NOW(value) __asm__ volatile("" : "+t"(value))
#else
#define FPTT_NOW(value) (void)(value)
#endif

/* FPTT around plain SGD in the fewest instructions of a processor that computes one number at a
 * time:
 *
 *   d = g + alpha (theta - m) - lambda      lambda' = lambda - alpha (theta' - m)
 *   theta' = theta - lr d                   m' = theta' - lambda / (2 alpha)
 *
 * which is `fptt_update` of the op table, where the last needs beta = 1/2 (`half`). `code`: lambda
 * enters whole (pull is 1), and d is not given. */
FPTT_INLINE uint32_t apply_fptt(const int half, const int code, size_t n, const float *g,
                                fptt_parameter *theta, fptt_parameter *lambda,
                                fptt_parameter *mean, const fptt_update_rule *rule,
                                fptt_step step) {
  const float alpha = rule->alpha, beta = rule->beta, keep = rule->one_minus_beta;
  const float ratio = rule->beta_over_alpha, pull = rule->pull;
  const float rate = step.lr * step.factor;
  const int directed = rule->directed;
  fptt_watch seen = 0;
#define FPTT_TURN(i)                                                                        \
  do {                                                                                      \
    const float old = FPTT_GET_P(theta[i]), m = FPTT_GET_P(mean[i]);                        \
    const float lam = code ? FPTT_GET_P(lambda[i]) : pull * FPTT_GET_P(lambda[i]);          \
    const float pulled = fptt_fma(alpha, old - m, g[i] - lam);                              \
    const float new = fptt_fma(-rate, !code && directed ? g[i] : pulled, old);              \
    float moved = new - m;                                                                  \
    FPTT_NOW(moved);                                                                        \
    const float halfway = half ? 0.0f : fptt_fma(beta, new, keep * m);                      \
    theta[i] = FPTT_PUT_P(new);                                                             \
    seen = fptt_watched(seen, new);                                                         \
    if (half) mean[i] = FPTT_PUT_P(fptt_fma(-ratio, lam, new));                             \
    const float lam_new = fptt_fma(-alpha, moved, lam);                                     \
    lambda[i] = FPTT_PUT_P(lam_new);                                                        \
    seen = fptt_watched(seen, lam_new);                                                     \
    if (!half) mean[i] = FPTT_PUT_P(fptt_fma(-ratio, lam_new, halfway));                    \
  } while (0)
  const float *const end = g + n, *const eights = g + (code ? n & ~(size_t)7 : 0);
  for (; g != eights; g += 8, theta += 8, lambda += 8, mean += 8) {
    FPTT_TURN(0);
    FPTT_TURN(1);
    FPTT_TURN(2);
    FPTT_TURN(3);
    FPTT_TURN(4);
    FPTT_TURN(5);
    FPTT_TURN(6);
    FPTT_TURN(7);
  }
  for (; g != end; g++, theta++, lambda++, mean++) FPTT_TURN(0);
#undef FPTT_TURN
  return fptt_seen(seen);
}
#else
#define FPTT_APPLY_ANY uint32_t FPTT_KERNEL(FPTT_APPLY_NAME)
#endif

FPTT_APPLY_ANY(size_t n, const float *g, const fptt_learned *at, size_t offset,
               const fptt_update_rule *rule, fptt_step step) {
  fptt_parameter *theta = (fptt_parameter *)at->theta + offset;
  fptt_parameter *lambda = at->lambda ? (fptt_parameter *)at->lambda + offset : NULL;
  fptt_parameter *mean = at->mean ? (fptt_parameter *)at->mean + offset : NULL;
  fptt_parameter *first = at->first ? (fptt_parameter *)at->first + offset : NULL;
  fptt_parameter *second = at->second ? (fptt_parameter *)at->second + offset : NULL;
  const uint32_t run = (uint32_t)(offset / at->stride), place = (uint32_t)(offset % at->stride);
  const uint32_t by = at->element_by_place;
  const uint32_t element = at->element + run * at->element_by_run + place * by;
#define FPTT_APPLY(optimizer, wrapped, stochastic)                                               \
  apply_loop(optimizer, wrapped, stochastic, element, by, n, g, theta, lambda, mean, first, second, \
             rule, step)
#if FPTT_PARAMETER_BF16
  if (rule->stochastic) {
    switch (rule->optimizer) {
      case FPTT_SGD: return rule->wrapped ? FPTT_APPLY(FPTT_SGD, 1, 1) : FPTT_APPLY(FPTT_SGD, 0, 1);
      case FPTT_MOMENTUM:
        return rule->wrapped ? FPTT_APPLY(FPTT_MOMENTUM, 1, 1) : FPTT_APPLY(FPTT_MOMENTUM, 0, 1);
      default: return rule->wrapped ? FPTT_APPLY(FPTT_ADAM, 1, 1) : FPTT_APPLY(FPTT_ADAM, 0, 1);
    }
  }
#endif
  switch (rule->optimizer) {
    case FPTT_SGD: return rule->wrapped ? FPTT_APPLY(FPTT_SGD, 1, 0) : FPTT_APPLY(FPTT_SGD, 0, 0);
    case FPTT_MOMENTUM:
      return rule->wrapped ? FPTT_APPLY(FPTT_MOMENTUM, 1, 0) : FPTT_APPLY(FPTT_MOMENTUM, 0, 0);
    default: return rule->wrapped ? FPTT_APPLY(FPTT_ADAM, 1, 0) : FPTT_APPLY(FPTT_ADAM, 0, 0);
  }
#undef FPTT_APPLY
}

#if FPTT_FUSED
uint32_t FPTT_KERNEL(FPTT_APPLY_NAME)(size_t n, const float *g, const fptt_learned *at,
                                      size_t offset, const fptt_update_rule *rule,
                                      fptt_step step) {
  if (rule->optimizer == FPTT_SGD && rule->wrapped && !rule->stochastic) {
    fptt_parameter *theta = (fptt_parameter *)at->theta + offset;
    fptt_parameter *lambda = (fptt_parameter *)at->lambda + offset;
    fptt_parameter *mean = (fptt_parameter *)at->mean + offset;
    if (rule->beta == 0.5f) {
      if (rule->pull == 1.0f && !rule->directed) {
        return apply_fptt(1, 1, n, g, theta, lambda, mean, rule, step);
      }
      return apply_fptt(1, 0, n, g, theta, lambda, mean, rule, step);
    }
    return apply_fptt(0, 0, n, g, theta, lambda, mean, rule, step);
  }
  return apply_any(n, g, at, offset, rule, step);
}
#endif

uint32_t FPTT_KERNEL(update)(const fptt_learned *at, const void *g, const fptt_update_rule *rule,
                             fptt_step step) {
  const fptt_parameter *gradient = g;
  uint32_t largest = 0;
  for (size_t run = 0; run < at->runs; run++) {
#if FPTT_FUSED && !FPTT_PARAMETER_BF16
    const size_t start = run * at->stride; /* nothing to widen: in place and all at once */
    uint32_t bound = FPTT_KERNEL(apply)(at->length, gradient + start, at, start, rule, step);
    largest = bound > largest ? bound : largest;
    continue;
#endif
    for (size_t low = 0; low < at->length;) {
      float some[256];
      size_t offset = run * at->stride + low;
      size_t n = at->length - low < 256 ? at->length - low : 256;
      for (size_t i = 0; i < n; i++) some[i] = FPTT_GET_P(gradient[offset + i]);
      uint32_t bits = FPTT_KERNEL(apply)(n, some, at, offset, rule, step);
      largest = bits > largest ? bits : largest;
      low += n;
    }
  }
  return largest;
}

void FPTT_KERNEL(direction)(size_t n, const void *theta, const void *g, const void *lambda,
                            const void *mean, void *d, float alpha, float pull) {
  const fptt_parameter *at = theta, *gradient = g, *lam = lambda, *m = mean;
  fptt_parameter *out = d;
  FPTT_INDEPENDENT for (size_t i = 0; i < n; i++) {
    float value = FPTT_GET_P(gradient[i]) +
                  (alpha * (FPTT_GET_P(at[i]) - FPTT_GET_P(m[i])) - pull * FPTT_GET_P(lam[i]));
    out[i] = FPTT_PUT_P(value);
  }
}

#if FPTT_FUSED
#define FPTT_LARGEST(get)                                                             \
  fptt_watch seen[4] = {0, 0, 0, 0}; /* side by side: one addition need not wait for another */ \
  size_t i = 0;                                                                       \
  for (; i < (n & ~(size_t)3); i += 4) {                                              \
    seen[0] = fptt_watched(seen[0], get(from[i]));                                    \
    seen[1] = fptt_watched(seen[1], get(from[i + 1]));                                \
    seen[2] = fptt_watched(seen[2], get(from[i + 2]));                                \
    seen[3] = fptt_watched(seen[3], get(from[i + 3]));                                \
  }                                                                                   \
  for (; i < n; i++) seen[0] = fptt_watched(seen[0], get(from[i]));                   \
  return fptt_seen(fptt_both(fptt_both(seen[0], seen[1]), fptt_both(seen[2], seen[3])))
#else
#define FPTT_LARGEST(get)                                                             \
  uint32_t largest = 0;                                                               \
  for (size_t i = 0; i < n; i++) largest = largest_of(largest, get(from[i]));         \
  return largest
#endif

uint32_t FPTT_KERNEL(largest_float)(size_t n, const void *values) {
  const float *from = values;
  FPTT_LARGEST(+);
}

uint32_t FPTT_KERNEL(largest_bf16)(size_t n, const void *values) {
  const fptt_bf16 *from = values;
  FPTT_LARGEST(fptt_widen);
}

float FPTT_KERNEL(square_sum)(size_t n, const void *d) {
  const fptt_parameter *values = d;
  float lanes[16] = {0}, total = 0; /* sums side by side: quick, and a smaller rounding error */
  for (size_t i = 0; i < n; i++) {
    float value = FPTT_GET_P(values[i]);
    lanes[i % 16] += value * value;
  }
  for (size_t l = 0; l < 16; l++) total += lanes[l];
  return total;
}
