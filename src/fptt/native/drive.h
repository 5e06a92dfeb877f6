/* What the training loop needs of the engine besides its public side. */
#ifndef FPTT_DRIVE_H
#define FPTT_DRIVE_H

#include "engine.h"

/* bits of the largest |value| of an operand (its running rows); those of a NaN are larger than
 * those of Inf */
uint32_t fptt_largest_of(const fptt_engine *engine, const fptt_operand *operand,
                         const fptt_segment *segment);

/* bits of the largest |value| among the gradients and among the inputs that an update multiplies */
typedef struct {
  uint32_t gradients, inputs;
} fptt_factors_bound;

fptt_factors_bound fptt_largest_watched(fptt_engine *engine, int32_t routine,
                                        const fptt_frame *frame);

#endif
