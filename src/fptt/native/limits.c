/* The limits of this machine, by plain loops. Compiled once for each instruction set. */
#include "bench.h"
#include "vector.h"

/* So many sums are in flight that two multiply-add units with a latency of 5 are never idle; with
 * their factor and what is added they fit 16 registers. */
#define FPTT_SUMS(S) S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) S(8) S(9) S(10) S(11)
enum { SUMS = 12, REPEATED = 8 };

static int64_t multiply_adds(int64_t rounds) {
  /* the compiler must not know them, or it would compute less; all sums tend to 1 */
  volatile float unknown = 0.875f;
  const float keep = unknown;
  const fptt_vec factor = (fptt_vec){0} + keep, added = (fptt_vec){0} + (1 - keep);
#define FPTT_BEGIN(n) fptt_vec s##n = factor * n;
#define FPTT_TURN(n) s##n = s##n * factor + added;
#define FPTT_ADD(n) total += s##n;
  FPTT_SUMS(FPTT_BEGIN)
  for (int64_t round = 0; round < rounds; round++) {
    FPTT_SUMS(FPTT_TURN) FPTT_SUMS(FPTT_TURN) FPTT_SUMS(FPTT_TURN) FPTT_SUMS(FPTT_TURN)
    FPTT_SUMS(FPTT_TURN) FPTT_SUMS(FPTT_TURN) FPTT_SUMS(FPTT_TURN) FPTT_SUMS(FPTT_TURN)
  }
  fptt_vec total = {0};
  FPTT_SUMS(FPTT_ADD)
  unknown = fptt_sum(total); /* now they must be computed */
  return rounds * REPEATED * SUMS * FPTT_LANES;
}

enum { STREAMS = 8 };

static float read_all(const float *from, int64_t count, int64_t rounds) {
  fptt_vec sum[STREAMS];
  for (int n = 0; n < STREAMS; n++) sum[n] = (fptt_vec){0};
  for (int64_t round = 0; round < rounds; round++) {
    for (int64_t at = 0; at < count; at += STREAMS * FPTT_LANES) {
      for (int n = 0; n < STREAMS; n++) sum[n] += fptt_load(from + at + n * FPTT_LANES);
    }
  }
  for (int n = 1; n < STREAMS; n++) sum[0] += sum[n];
  return fptt_sum(sum[0]);
}

static void rewrite(float *at, int64_t count, int64_t rounds) {
  for (int64_t round = 0; round < rounds; round++) {
    const float sign = round % 2 ? -1.0f : 1.0f; /* so that they never grow */
    for (int64_t n = 0; n < count; n += FPTT_LANES) {
      fptt_store(at + n, fptt_load(at + n) + sign);
    }
  }
}

const fptt_limits FPTT_KERNEL(limits) = {multiply_adds, read_all, rewrite};
