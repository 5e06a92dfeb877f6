#ifndef FPTT_MATH_H
#define FPTT_MATH_H
#include <math.h>
static inline float fptt_exp(float x){return expf(x);}
static inline float fptt_log(float x){return logf(x);}
static inline float fptt_sqrt(float x){return sqrtf(x);}
static inline float fptt_tanh(float x){return tanhf(x);}
static inline float fptt_sigmoid(float x){return 1.0f/(1.0f+expf(-x));}
#endif
