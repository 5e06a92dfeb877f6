/* The functions of fptt_math.h on arrays: y[i] = f(x[i]) for i < n.

   y may be x itself; otherwise the two must not overlap. */

#ifndef FPTT_MATH_ARRAYS_H
#define FPTT_MATH_ARRAYS_H

#include <stddef.h>

/* cdef begin */
void fptt_exp_n(float *y, const float *x, size_t n);
void fptt_log_n(float *y, const float *x, size_t n);
void fptt_sqrt_n(float *y, const float *x, size_t n);
void fptt_tanh_n(float *y, const float *x, size_t n);
void fptt_sigmoid_n(float *y, const float *x, size_t n);
/* cdef end */

#endif
