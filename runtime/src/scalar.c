/* Functions of one number, for callers that are not kernels. */
#include "fptt_math.h"

float fptt_sqrt_of(float value);
float fptt_sqrt_of(float value) { return fptt_sqrt(value); }
