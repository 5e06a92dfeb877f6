/* Parameter updates with RISC-V vectors: the same operations in the same order as ../updates.c, and
 * so the same bits (vfsqrt.v and fptt_sqrt both round correctly). */
#include "random.h"
#include "functions.h"

/* The largest of `largest` and the bits of |value|. It is reduced at once to one number: a maximum
 * lane by lane would have to keep the lanes behind a short last group. */
FPTT_INLINE vuint32m1_t largest_of(vuint32m1_t largest, fptt_group value, size_t vl) {
  vuint32m4_t bits = __riscv_vreinterpret_v_f32m4_u32m4(value);
  bits = __riscv_vand_vx_u32m4(bits, 0x7FFFFFFFu, vl);
  return __riscv_vredmaxu_vs_u32m4_u32m1(bits, largest, vl);
}

FPTT_INLINE vuint32m1_t no_largest(void) { return __riscv_vmv_s_x_u32m1(0, 1); }

#if FPTT_PARAMETER_BF16
/* fptt_noise of the elements element, element + by, .. */
FPTT_INLINE vuint32m4_t noise_group(uint32_t key, uint32_t element, uint32_t by, size_t vl) {
  vuint32m4_t bits = __riscv_vmul_vx_u32m4(__riscv_vid_v_u32m4(vl), by * 0x9E3779B9u, vl);
  bits = __riscv_vxor_vx_u32m4(__riscv_vadd_vx_u32m4(bits, element * 0x9E3779B9u, vl), key, vl);
  bits = __riscv_vxor_vv_u32m4(bits, __riscv_vsrl_vx_u32m4(bits, 16, vl), vl);
  bits = __riscv_vmul_vx_u32m4(bits, 0x7FEB352Du, vl);
  bits = __riscv_vxor_vv_u32m4(bits, __riscv_vsrl_vx_u32m4(bits, 15, vl), vl);
  bits = __riscv_vmul_vx_u32m4(bits, 0x846CA68Bu, vl);
  return __riscv_vxor_vv_u32m4(bits, __riscv_vsrl_vx_u32m4(bits, 16, vl), vl);
}

/* As fptt_narrow_random. Inf and NaN need no care: see fptt_narrow_group. */
FPTT_INLINE void store_random(fptt_bf16 *to, fptt_group value, vuint32m4_t noise, size_t vl) {
  vuint32m4_t bits = __riscv_vreinterpret_v_f32m4_u32m4(value);
  bits = __riscv_vadd_vv_u32m4(bits, __riscv_vand_vx_u32m4(noise, 0xFFFFu, vl), vl);
  __riscv_vse16_v_u16m2(to, __riscv_vnsrl_wx_u16m2(bits, 16, vl), vl);
}

#define FPTT_PUT(to, value, which)                                                               \
  if (stochastic) {                                                                              \
    store_random(to, value, noise_group(step.key[which], element, by, vl), vl);                  \
  } else {                                                                                       \
    FPTT_STORE_P(to, value, vl);                                                           \
  }
#else
#define FPTT_PUT(to, value, which) FPTT_STORE_P(to, value, vl);
#endif

/* The loop of ../updates.c, with optimizer and wrapper as constants. */
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
  vuint32m1_t largest = no_largest();
  (void)stochastic, (void)element, (void)by;
  for (size_t left = n, vl; left; left -= vl) {
    vl = __riscv_vsetvl_e32m4(left);
    fptt_group d = fptt_group_float(g, vl), old = FPTT_GROUP_P(theta, vl);
    fptt_group lam = d, m = d, new;
    if (wrapped) {
      lam = FPTT_MUL_F(FPTT_GROUP_P(lambda, vl), pull);
      m = FPTT_GROUP_P(mean, vl);
      if (__builtin_expect(!directed, 1)) {
        d = FPTT_ADD(d, FPTT_SUB(FPTT_MUL_F(FPTT_SUB(old, m), alpha), lam));
      }
    }
    d = FPTT_MUL_F(d, factor);
    if (optimizer == FPTT_SGD) {
      new = FPTT_SUB(old, FPTT_MUL_F(d, lr));
    } else if (optimizer == FPTT_MOMENTUM) {
      d = FPTT_ADD(FPTT_MUL_F(FPTT_GROUP_P(first, vl), momentum), d);
      FPTT_STORE_P(first, d, vl);
      new = FPTT_SUB(old, FPTT_MUL_F(d, lr));
    } else {
      fptt_group moment2 = FPTT_MUL(FPTT_MUL_F(d, rest2), d);
      moment2 = FPTT_ADD(FPTT_MUL_F(FPTT_GROUP_P(second, vl), beta2), moment2);
      FPTT_STORE_P(second, moment2, vl);
      fptt_group moment1 = FPTT_MUL_F(FPTT_GROUP_P(first, vl), beta1);
      moment1 = FPTT_ADD(moment1, FPTT_MUL_F(d, rest1));
      FPTT_STORE_P(first, moment1, vl);
      fptt_group root = __riscv_vfdiv_vf_f32m4(moment2, correction2, vl);
      root = FPTT_ADD_F(__riscv_vfsqrt_v_f32m4(root, vl), epsilon);
      new = FPTT_SUB(old, __riscv_vfdiv_vv_f32m4(FPTT_MUL_F(moment1, rate), root, vl));
    }
    FPTT_PUT(theta, new, 0)
    largest = largest_of(largest, new, vl);
    if (wrapped) {
      lam = FPTT_SUB(lam, FPTT_MUL_F(FPTT_SUB(new, m), alpha));
      FPTT_PUT(lambda, lam, 1)
      largest = largest_of(largest, lam, vl);
      m = FPTT_ADD(FPTT_MUL_F(m, keep), FPTT_MUL_F(new, beta));
      FPTT_PUT(mean, FPTT_SUB(m, FPTT_MUL_F(lam, ratio)), 2)
      lambda += vl, mean += vl;
    }
    g += vl, theta += vl, element += (uint32_t)vl * by;
    if (optimizer != FPTT_SGD) first += vl;
    if (optimizer == FPTT_ADAM) second += vl;
  }
  return __riscv_vmv_x_s_u32m1_u32(largest);
}

uint32_t FPTT_KERNEL(apply)(size_t n, const float *g, const fptt_learned *at, size_t offset,
                            const fptt_update_rule *rule, fptt_step step) {
  fptt_parameter *theta = (fptt_parameter *)at->theta + offset;
  fptt_parameter *lambda = at->lambda ? (fptt_parameter *)at->lambda + offset : NULL;
  fptt_parameter *mean = at->mean ? (fptt_parameter *)at->mean + offset : NULL;
  fptt_parameter *first = at->first ? (fptt_parameter *)at->first + offset : NULL;
  fptt_parameter *second = at->second ? (fptt_parameter *)at->second + offset : NULL;
  const uint32_t run = (uint32_t)(offset / at->stride), place = (uint32_t)(offset % at->stride);
  const uint32_t by = at->element_by_place;
  const uint32_t element = at->element + run * at->element_by_run + place * by;
#define FPTT_APPLY(optimizer, stochastic)                                                          \
  (rule->wrapped ? apply_loop(optimizer, 1, stochastic, element, by, n, g, theta, lambda, mean,    \
                              first, second, rule, step)                                           \
                 : apply_loop(optimizer, 0, stochastic, element, by, n, g, theta, lambda, mean,    \
                              first, second, rule, step))
#if FPTT_PARAMETER_BF16
  if (rule->stochastic) {
    switch (rule->optimizer) {
      case FPTT_SGD: return FPTT_APPLY(FPTT_SGD, 1);
      case FPTT_MOMENTUM: return FPTT_APPLY(FPTT_MOMENTUM, 1);
      default: return FPTT_APPLY(FPTT_ADAM, 1);
    }
  }
#endif
  switch (rule->optimizer) {
    case FPTT_SGD: return FPTT_APPLY(FPTT_SGD, 0);
    case FPTT_MOMENTUM: return FPTT_APPLY(FPTT_MOMENTUM, 0);
    default: return FPTT_APPLY(FPTT_ADAM, 0);
  }
#undef FPTT_APPLY
}

uint32_t FPTT_KERNEL(update)(const fptt_learned *at, const void *g, const fptt_update_rule *rule,
                             fptt_step step) {
  uint32_t largest = 0;
  for (size_t run = 0; run < at->runs; run++) {
    const fptt_parameter *gradient = (const fptt_parameter *)g + run * at->stride;
#if FPTT_PARAMETER_BF16
    for (size_t low = 0, n; low < at->length; low += n) {
      float some[256];
      n = at->length - low < 256 ? at->length - low : 256;
      for (size_t i = 0, vl; i < n; i += vl) {
        vl = __riscv_vsetvl_e32m4(n - i);
        fptt_store_float(some + i, FPTT_GROUP_P(gradient + low + i, vl), vl);
      }
      uint32_t bits = FPTT_KERNEL(apply)(n, some, at, run * at->stride + low, rule, step);
      largest = bits > largest ? bits : largest;
    }
#else
    uint32_t bits = FPTT_KERNEL(apply)(at->length, gradient, at, run * at->stride, rule, step);
    largest = bits > largest ? bits : largest;
#endif
  }
  return largest;
}

void FPTT_KERNEL(direction)(size_t n, const void *theta, const void *g, const void *lambda,
                            const void *mean, void *d, float alpha, float pull) {
  const fptt_parameter *at = theta, *gradient = g, *multiplier = lambda, *m = mean;
  fptt_parameter *out = d;
  for (size_t i = 0, vl; i < n; i += vl) {
    vl = __riscv_vsetvl_e32m4(n - i);
    fptt_group away = FPTT_SUB(FPTT_GROUP_P(at + i, vl), FPTT_GROUP_P(m + i, vl));
    fptt_group lam = FPTT_MUL_F(FPTT_GROUP_P(multiplier + i, vl), pull);
    away = FPTT_SUB(FPTT_MUL_F(away, alpha), lam);
    FPTT_STORE_P(out + i, FPTT_ADD(FPTT_GROUP_P(gradient + i, vl), away), vl);
  }
}

uint32_t FPTT_KERNEL(largest_float)(size_t n, const void *values) {
  const float *from = values;
  vuint32m1_t largest = no_largest();
  for (size_t i = 0, vl; i < n; i += vl) {
    vl = __riscv_vsetvl_e32m4(n - i);
    largest = largest_of(largest, fptt_group_float(from + i, vl), vl);
  }
  return __riscv_vmv_x_s_u32m1_u32(largest);
}

uint32_t FPTT_KERNEL(largest_bf16)(size_t n, const void *values) {
  const fptt_bf16 *from = values;
  vuint32m1_t largest = no_largest();
  for (size_t i = 0, vl; i < n; i += vl) {
    vl = __riscv_vsetvl_e32m4(n - i);
    largest = largest_of(largest, fptt_group_bf16(from + i, vl), vl);
  }
  return __riscv_vmv_x_s_u32m1_u32(largest);
}

float FPTT_KERNEL(square_sum)(size_t n, const void *d) {
  const fptt_parameter *values = d;
  fptt_group sums = fptt_zero(); /* of 16 lanes whatever VLEN is, for the bits of ../updates.c */
  for (size_t i = 0, vl; i < n; i += vl) {
    vl = __riscv_vsetvl_e32m4(n - i < 16 ? n - i : 16);
    fptt_group value = FPTT_GROUP_P(values + i, vl);
    sums = __riscv_vfadd_vv_f32m4_tu(sums, sums, FPTT_MUL(value, value), vl);
  }
  vfloat32m1_t total = __riscv_vfmv_s_f_f32m1(0.0f, 1);
  return __riscv_vfmv_f_s_f32m1_f32(__riscv_vfredosum_vs_f32m4_f32m1(sums, total, 16));
}
