/* What `fptt bench` measures besides training: the machine's limits, and time by routine. */
#ifndef FPTT_BENCH_H
#define FPTT_BENCH_H

#include "engine.h"

/* cdef begin */

/* Loops that do one thing as fast as an instruction set can; `rounds` says how often. */
typedef struct {
  /* multiply-adds that stay in registers; returns how many scalar ones */
  int64_t (*multiply_adds)(int64_t rounds);
  /* reads an array from its begin to its end; count is a multiple of 256 */
  float (*read)(const float *from, int64_t count, int64_t rounds);
  /* reads it and writes it back changed; likewise */
  void (*rewrite)(float *at, int64_t count, int64_t rounds);
} fptt_limits;

const fptt_limits *fptt_isa_limits(int32_t isa);

/* Runs the parts of one batch on the input that lies there, and adds to `seconds` what each routine
 * took (FPTT_ROUTINES numbers). */
fptt_status fptt_time_routines(fptt_engine *engine, const fptt_frame *parts, int32_t count,
                               double *seconds);

/* cdef end */

#endif
