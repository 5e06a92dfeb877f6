/* What the files of this folder share. */
#ifndef FPTT_MVE_APPLY_H
#define FPTT_MVE_APPLY_H

#include "target.h"

#if FPTT_ACTIVATION_BF16 || FPTT_PARAMETER_BF16
#error "runtime/src/mve holds float32 only: with bfloat16, build the files of runtime/src"
#endif

/* `apply` on `lines` lines of `width` numbers: their gradients lie g_stride apart, they themselves
 * start at element `offset` and lie at->stride apart. */
uint32_t FPTT_KERNEL(apply_lines)(size_t lines, size_t width, const float *g, size_t g_stride,
                                  const fptt_learned *at, size_t offset,
                                  const fptt_update_rule *rule, const fptt_step *step);

#endif
