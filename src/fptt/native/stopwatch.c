/* Time by routine. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "bench.h"

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

fptt_status fptt_time_routines(fptt_engine *engine, const fptt_frame *parts, int32_t count,
                               double *seconds) {
  static const int32_t order[] = {FPTT_BEGIN_SEQUENCE, FPTT_NEXT_SEQUENCE, FPTT_FORWARD, FPTT_LOSS,
                                  FPTT_BACKWARD,       FPTT_UPDATE,        FPTT_CARRY};
  enum { ROUTINES = sizeof order / sizeof *order, OF_SEQUENCE = 2 };
  for (int32_t part = 0; part < count; part++) {
    double before = seconds_now();
    for (int n = part ? OF_SEQUENCE : 0; n < ROUTINES; n++) {
      const fptt_status status = fptt_run(engine, order[n], &parts[part], -1);
      if (status != FPTT_OK) return status;
      const double after = seconds_now();
      seconds[order[n]] += after - before;
      before = after;
    }
  }
  return FPTT_OK;
}
