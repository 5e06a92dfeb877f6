/* The kernels under the names that generated code calls: fptt_product and so on, of the two number
 * types for which the runtime was compiled. kernels.h says what each computes. */
#ifndef FPTT_PLAIN_KERNELS_H
#define FPTT_PLAIN_KERNELS_H

#include "kernels.h"

#define FPTT_PLAIN_PROTOTYPE(result, name, arguments) result fptt_##name arguments;
FPTT_KERNEL_LIST(FPTT_PLAIN_PROTOTYPE)
#undef FPTT_PLAIN_PROTOTYPE

#endif
