/* The kernels of one build as a table, for callers that choose at run time. */
#include "target.h"

#ifndef FPTT_SUFFIX
#error "table.c is for builds that live side by side: give -DFPTT_SUFFIX=.."
#endif

extern const fptt_kernels FPTT_KERNEL(kernels);
const fptt_kernels FPTT_KERNEL(kernels) = {
#define FPTT_KERNEL_ENTRY(result, name, arguments) .name = FPTT_KERNEL(name),
    FPTT_KERNEL_LIST(FPTT_KERNEL_ENTRY)
#undef FPTT_KERNEL_ENTRY
};
