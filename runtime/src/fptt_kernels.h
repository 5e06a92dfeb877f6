/* The kernels under the names that generated code calls: fptt_product and so on, of the two number
 * types for which the runtime was compiled. kernels.h says what each computes. */
#ifndef FPTT_PLAIN_KERNELS_H
#define FPTT_PLAIN_KERNELS_H

#include "kernels.h"

/* Two models in one firmware share the run time, so both must be of the same number types. Each asks
 * for this symbol, which the run time defines: another one is an error of the linker. */
#if FPTT_ACTIVATION_BF16 && FPTT_PARAMETER_BF16
#define FPTT_TYPES fptt_types_bfloat16
#elif FPTT_ACTIVATION_BF16
#define FPTT_TYPES fptt_types_float_with_bfloat16_activations
#elif FPTT_PARAMETER_BF16
#define FPTT_TYPES fptt_types_bfloat16_with_float_activations
#else
#define FPTT_TYPES fptt_types_float
#endif
extern const uint8_t FPTT_TYPES;

#define FPTT_PLAIN_PROTOTYPE(result, name, arguments) result fptt_##name arguments;
FPTT_KERNEL_LIST(FPTT_PLAIN_PROTOTYPE)
#undef FPTT_PLAIN_PROTOTYPE

#endif
