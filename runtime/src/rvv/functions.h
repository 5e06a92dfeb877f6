/* sigmoid and tanh on groups of vector registers: operation for operation those of fptt_math.h,
 * and so the same bits. No fused multiply-add, therefore. */
#ifndef FPTT_RVV_FUNCTIONS_H
#define FPTT_RVV_FUNCTIONS_H

#include "rvv.h"

#define FPTT_ADD(a, b) __riscv_vfadd_vv_f32m4(a, b, vl)
#define FPTT_ADD_F(a, b) __riscv_vfadd_vf_f32m4(a, b, vl)
#define FPTT_SUB(a, b) __riscv_vfsub_vv_f32m4(a, b, vl)
#define FPTT_SUB_F(a, b) __riscv_vfsub_vf_f32m4(a, b, vl)
#define FPTT_F_SUB(a, b) __riscv_vfrsub_vf_f32m4(b, a, vl)
#define FPTT_MUL(a, b) __riscv_vfmul_vv_f32m4(a, b, vl)
#define FPTT_MUL_F(a, b) __riscv_vfmul_vf_f32m4(a, b, vl)

/* value > limit ? limit : value; NaN stays, which vfmin would not let it */
FPTT_INLINE fptt_group fptt_at_most(fptt_group value, float limit, size_t vl) {
  vbool8_t above = __riscv_vmfgt_vf_f32m4_b8(value, limit, vl);
  return __riscv_vfmerge_vfm_f32m4(value, limit, above, vl);
}

/* (bits of rounded << 23) + bits */
FPTT_INLINE fptt_group fptt_power_of_two(fptt_group rounded, uint32_t bits, size_t vl) {
  vuint32m4_t power = __riscv_vreinterpret_v_f32m4_u32m4(rounded);
  power = __riscv_vadd_vx_u32m4(__riscv_vsll_vx_u32m4(power, 23, vl), bits, vl);
  return __riscv_vreinterpret_v_u32m4_f32m4(power);
}

FPTT_INLINE fptt_group fptt_sigmoid_group(fptt_group x, size_t vl) {
  fptt_group below = fptt_at_most(x, 88.0f, vl);
  fptt_group rounded = FPTT_ADD_F(FPTT_MUL_F(below, -FPTT_LOG2_E), FPTT_ROUNDER);
  fptt_group n = FPTT_SUB_F(rounded, FPTT_ROUNDER);
  fptt_group r = FPTT_ADD(FPTT_ADD(below, FPTT_MUL_F(n, FPTT_LN2_HI)), FPTT_MUL_F(n, FPTT_LN2_LO));
  fptt_group square = FPTT_MUL(r, r);
  fptt_group R = FPTT_F_SUB(0.5f * FPTT_COTH_A, FPTT_MUL_F(square, 0.125f * FPTT_COTH_B));
  R = FPTT_ADD_F(FPTT_MUL(square, R), 2.0f);
  fptt_group scale = fptt_power_of_two(rounded, FPTT_BITS_1, vl);
  fptt_group one = FPTT_ADD(R, r);
  fptt_group y = __riscv_vfdiv_vv_f32m4(one, FPTT_ADD(one, FPTT_MUL(scale, FPTT_SUB(R, r))), vl);
  return __riscv_vfmerge_vfm_f32m4(y, 0.0f, __riscv_vmflt_vf_f32m4_b8(x, FPTT_EXP_MIN, vl), vl);
}

FPTT_INLINE fptt_group fptt_tanh_group(fptt_group x, size_t vl) {
  fptt_group below = fptt_at_most(__riscv_vfabs_v_f32m4(x, vl), 9.125f, vl);
  fptt_group rounded = FPTT_ADD_F(FPTT_MUL_F(below, 2.0f * FPTT_LOG2_E), FPTT_ROUNDER);
  fptt_group n = FPTT_SUB_F(rounded, FPTT_ROUNDER);
  fptt_group r = FPTT_MUL_F(FPTT_SUB(below, FPTT_MUL_F(n, 0.5f * FPTT_LN2)), FPTT_TANH_SCALE);
  fptt_group square = FPTT_MUL(r, r);
  fptt_group rest = FPTT_MUL(square, FPTT_F_SUB(FPTT_TANH_A, FPTT_MUL_F(square, FPTT_TANH_B)));
  fptt_group half = FPTT_SUB_F(fptt_power_of_two(rounded, FPTT_BITS_HALF, vl), 0.5f);
  fptt_group w = FPTT_ADD(FPTT_MUL(half, FPTT_ADD_F(FPTT_ADD(rest, r), FPTT_TANH_SCALE)), r);
  fptt_group all = FPTT_ADD(w, FPTT_ADD_F(FPTT_SUB(rest, r), FPTT_TANH_SCALE));
  return __riscv_vfsgnj_vv_f32m4(__riscv_vfdiv_vv_f32m4(w, all, vl), x, vl);
}

/* y (1 - y) and 1 - y^2: their derivatives from their results */
FPTT_INLINE fptt_group fptt_sigmoid_slope(fptt_group y, size_t vl) {
  return FPTT_MUL(y, FPTT_F_SUB(1.0f, y));
}

FPTT_INLINE fptt_group fptt_tanh_slope(fptt_group y, size_t vl) {
  return FPTT_F_SUB(1.0f, FPTT_MUL(y, y));
}

#endif
