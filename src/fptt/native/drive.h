/* What the training loop needs of the engine besides its public side. */
#ifndef FPTT_DRIVE_H
#define FPTT_DRIVE_H

#include "engine.h"

/* bits of the largest |value| of an operand (its running rows); those of a NaN are larger than
 * those of Inf */
uint32_t fptt_largest_of(const fptt_engine *engine, const fptt_operand *operand,
                         const fptt_segment *segment);

/* the same over all watched operands of a routine */
uint32_t fptt_largest_watched(fptt_engine *engine, int32_t routine, const fptt_frame *frame);

#endif
