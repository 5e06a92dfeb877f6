/* The functions of fptt_math.h on arrays.

   Without the pragma a compiler would vectorise only after a check that x and y do not overlap,
   and in place, y = x, would run one element at a time. */

#include "math_arrays.h"

#include "fptt_fused.h"

#if FPTT_FUSED /* one element at a time */
#define INDEPENDENT
#elif defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define INDEPENDENT _Pragma("GCC ivdep")
#else
#define INDEPENDENT
#endif

#define ON_ARRAYS(name, function)                                                                  \
    void name##_n(float *y, const float *x, size_t n) {                                            \
        INDEPENDENT                                                                                \
        for (size_t i = 0; i < n; i++) {                                                           \
            y[i] = function(x[i]);                                                                 \
        }                                                                                          \
    }

ON_ARRAYS(fptt_exp, fptt_exp)
ON_ARRAYS(fptt_log, fptt_log)
ON_ARRAYS(fptt_sqrt, fptt_sqrt)
ON_ARRAYS(fptt_tanh, FPTT_TANH)
ON_ARRAYS(fptt_sigmoid, FPTT_SIGMOID)
