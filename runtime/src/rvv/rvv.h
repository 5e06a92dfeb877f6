/* RISC-V Vector 1.0 (rv64gcv): how the vector kernels load and store.
 *
 * products.c, cells.c and updates.c replace products.c, cells.c and updates.c; names
 * and meaning are the same. They ask for no particular length of the registers: any VLEN from 128 bits
 * on will do. Compile with clang 19 or newer (gcc 12 has no RVV intrinsics):
 *
 *   clang --target=riscv64-unknown-elf -march=rv64gcv -mabi=lp64d -mcmodel=medany -O3
 *         -ffp-contract=off -fno-vectorize -fno-slp-vectorize
 *         -mllvm -enable-misched=false -mllvm -disable-lsr
 *
 * The objects link with gcc's. With clang's scheduler (misched) loads move ahead until the
 * registers no longer suffice, and sums are spilled in the inner loops; its loop strength reduction (lsr)
 * computes several addresses from one instead of moving each on, which takes more additions.
 *
 * Before the first kernel, vectors must be switched on: set bits 10:9 (VS) of mstatus to something
 * other than zero, as with FS for floats, or the first vector instruction traps:
 *
 *   csrs mstatus, t0        with t0 = 0x2200 (FS and VS "initial")
 *
 * An interrupt handler that uses vectors must save v0-v31, vl, vtype and vstart; one that uses none
 * need not care.
 *
 * Arithmetic is done on a *group* of 4 registers at a time (LMUL 4: 16 floats with VLEN 128). Long
 * runs are loaded as a *pair* of groups by one instruction, because vector loads have no address
 * offset and so cost a scalar addition each. -DFPTT_RVV_PAIRS=0 loads group by group.
 *
 * The stack of any kernel stays below 4096 bytes and 16 vector registers.
 */
#ifndef FPTT_RVV_H
#define FPTT_RVV_H

#include "target.h"

#ifndef __riscv_v_intrinsic
#error "the kernels in rvv/ need RVV 1.0: clang 19 with -march=rv64gcv"
#endif
#include <riscv_vector.h>

#ifndef FPTT_RVV_PAIRS
#define FPTT_RVV_PAIRS 1
#endif

typedef vfloat32m4_t fptt_group;

/* Floats of a whole group. */
FPTT_INLINE size_t fptt_whole(void) { return __riscv_vsetvlmax_e32m4(); }

/* Zero, made where it is needed: compilers like to keep one for all, and to spill it. */
FPTT_INLINE fptt_group fptt_zero(void) {
  float zero = 0.0f;
  __asm__ volatile("" : "+f"(zero));
  return __riscv_vfmv_v_f_f32m4(zero, fptt_whole());
}

FPTT_INLINE fptt_group fptt_widen_group(vuint16m2_t half, size_t vl) {
  vuint32m4_t bits = __riscv_vsll_vx_u32m4(__riscv_vzext_vf2_u32m4(half, vl), 16, vl);
  return __riscv_vreinterpret_v_u32m4_f32m4(bits);
}

FPTT_INLINE fptt_group fptt_group_float(const float *from, size_t vl) {
  return __riscv_vle32_v_f32m4(from, vl);
}

FPTT_INLINE fptt_group fptt_group_bf16(const fptt_bf16 *from, size_t vl) {
  return fptt_widen_group(__riscv_vle16_v_u16m2(from, vl), vl);
}

/* Two whole groups that are neighbours in memory, as they were loaded, and one of them (0 or 1). */
#if FPTT_RVV_PAIRS
typedef vfloat32m8_t fptt_pair_float;
typedef vuint16m4_t fptt_pair_bf16;

/* Reading through these is one vl8re32.v or vl4re16.v, which need an element's alignment only. */
typedef fptt_pair_float fptt_float_memory __attribute__((aligned(4), may_alias));
typedef fptt_pair_bf16 fptt_bf16_memory __attribute__((aligned(2), may_alias));

FPTT_INLINE fptt_pair_float fptt_load_float(const float *from) {
  return *(const fptt_float_memory *)from;
}

FPTT_INLINE fptt_pair_bf16 fptt_load_bf16(const fptt_bf16 *from) {
  return *(const fptt_bf16_memory *)from;
}

FPTT_INLINE fptt_group fptt_of_float(fptt_pair_float pair, const int which) {
  return which ? __riscv_vget_v_f32m8_f32m4(pair, 1) : __riscv_vget_v_f32m8_f32m4(pair, 0);
}

FPTT_INLINE fptt_group fptt_of_bf16(fptt_pair_bf16 pair, const int which) {
  return fptt_widen_group(which ? __riscv_vget_v_u16m4_u16m2(pair, 1)
                                : __riscv_vget_v_u16m4_u16m2(pair, 0), fptt_whole());
}
#else
/* loaded only when it is asked for */
typedef const float *fptt_pair_float;
typedef const fptt_bf16 *fptt_pair_bf16;

FPTT_INLINE fptt_pair_float fptt_load_float(const float *from) { return from; }
FPTT_INLINE fptt_pair_bf16 fptt_load_bf16(const fptt_bf16 *from) { return from; }

FPTT_INLINE fptt_group fptt_of_float(fptt_pair_float pair, const int which) {
  return fptt_group_float(which ? pair + fptt_whole() : pair, fptt_whole());
}

FPTT_INLINE fptt_group fptt_of_bf16(fptt_pair_bf16 pair, const int which) {
  return fptt_group_bf16(which ? pair + fptt_whole() : pair, fptt_whole());
}
#endif

/* To nearest, as fptt_narrow. Inf and NaN need no care: Inf, the one NaN of RISC-V's arithmetic and
 * what was widened from bfloat16 end in 16 zeros, so that nothing carries. */
FPTT_INLINE vuint16m2_t fptt_narrow_group(fptt_group value, size_t vl) {
  vuint32m4_t bits = __riscv_vreinterpret_v_f32m4_u32m4(value);
  vuint32m4_t odd = __riscv_vand_vx_u32m4(__riscv_vsrl_vx_u32m4(bits, 16, vl), 1, vl);
  vuint32m4_t sum = __riscv_vadd_vx_u32m4(__riscv_vadd_vv_u32m4(bits, odd, vl), 0x7FFF, vl);
  return __riscv_vnsrl_wx_u16m2(sum, 16, vl);
}

FPTT_INLINE void fptt_store_float(float *to, fptt_group value, size_t vl) {
  __riscv_vse32_v_f32m4(to, value, vl);
}

FPTT_INLINE void fptt_store_bf16(fptt_bf16 *to, fptt_group value, size_t vl) {
  __riscv_vse16_v_u16m2(to, fptt_narrow_group(value, vl), vl);
}

#if FPTT_ACTIVATION_BF16
#define FPTT_GROUP_A fptt_group_bf16
#define FPTT_PAIR_A fptt_pair_bf16
#define FPTT_LOAD_A fptt_load_bf16
#define FPTT_OF_A fptt_of_bf16
#define FPTT_STORE_A fptt_store_bf16
#else
#define FPTT_GROUP_A fptt_group_float
#define FPTT_PAIR_A fptt_pair_float
#define FPTT_LOAD_A fptt_load_float
#define FPTT_OF_A fptt_of_float
#define FPTT_STORE_A fptt_store_float
#endif
#if FPTT_PARAMETER_BF16
#define FPTT_GROUP_P fptt_group_bf16
#define FPTT_PAIR_P fptt_pair_bf16
#define FPTT_LOAD_P fptt_load_bf16
#define FPTT_OF_P fptt_of_bf16
#define FPTT_STORE_P fptt_store_bf16
#else
#define FPTT_GROUP_P fptt_group_float
#define FPTT_PAIR_P fptt_pair_float
#define FPTT_LOAD_P fptt_load_float
#define FPTT_OF_P fptt_of_float
#define FPTT_STORE_P fptt_store_float
#endif

#endif
