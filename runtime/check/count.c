/* See count.h. The cost of counting itself is measured at the start and taken off. */
#include "count.h"

#include "fptt.h"
#include "port.h"

#ifdef FPTT_COUNT

#include "check_data.h"

/* 0 is what belongs to no operation; the second half is what fptt_apply takes inside each of them */
enum { OPS = CHECK_OPS + 1 };

static uint64_t counted[2 * OPS], since, cost, wrapping;
static uint32_t calls[2 * OPS], now;

/* Called from here as from generated code, so that calls cost the same. */
__attribute__((noinline)) void fptt_count_op(uint32_t number) {
  const uint64_t at = fptt_port_instructions();
  counted[now] += at - since - cost;
  calls[number]++;
  now = number;
  since = fptt_port_instructions();
}

uint32_t __real_fptt_apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                           const fptt_update_rule *rule, fptt_step step);
uint32_t __wrap_fptt_apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                           const fptt_update_rule *rule, fptt_step step);

/* The update inside a fused gradient-and-update is counted by itself: the linker sends calls of
 * fptt_apply here (--wrap=fptt_apply). */
uint32_t __wrap_fptt_apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                           const fptt_update_rule *rule, fptt_step step) {
  const uint32_t before = now;
  fptt_count_op(before + OPS);
  const uint32_t bits = __real_fptt_apply(n, g, at, offset, rule, step);
  fptt_count_op(before);
  calls[before]--;
  counted[before] -= wrapping;
  return bits;
}

typedef uint32_t apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                       const fptt_update_rule *rule, fptt_step step);

/* An update of nothing, called as from another file: nothing is inlined. */
static void empty_apply(int wrapped) {
  apply *volatile chosen = wrapped ? __wrap_fptt_apply : __real_fptt_apply;
  static float none[16];
  static const fptt_update_rule rule;
  const fptt_learned at = {none, none, none, none, none, 1, 1, 1, 0, 0, 1};
  const fptt_step step = {0.0f, 1.0f, 1.0f, 1.0f, {0}};
  (void)chosen(0, none, &at, 0, &rule, step);
}

/* Instructions from the beginning of a count to its end, with an update of nothing between: none
 * (-1), a bare one (0), or one that is counted by itself (1). The least of several. */
static uint64_t measured(int wrapped) {
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < 8; i++) {
    counted[0] = counted[OPS] = 0;
    now = OPS;
    fptt_count_op(0);
    counted[OPS] = 0;
    if (wrapped >= 0) empty_apply(wrapped);
    fptt_count_op(0);
    const uint64_t one = counted[0] + counted[OPS];
    least = one < least ? one : least;
  }
  return least;
}

void fptt_count_start(void) {
  cost = wrapping = 0;
  cost = measured(-1);
  const uint64_t bare = measured(0), counted_too = measured(1);
  wrapping = counted_too > bare ? counted_too - bare : 0;
  for (int i = 0; i < 2 * OPS; i++) counted[i] = calls[i] = 0;
  now = 0;
  since = fptt_port_instructions();
}

void fptt_count_stop(void) { fptt_count_op(0); }

/* What was taken off for counting may be an instruction too many. */
static uint64_t not_below_zero(uint64_t value) { return value >> 63 ? 0 : value; }

void fptt_count_print(void (*line)(const char *name, uint64_t value)) {
  for (uint32_t i = 0; i < OPS; i++) {
    line("op", i);
    line("instructions_of", not_below_zero(counted[i]));
    line("calls_of", calls[i]);
    line("applied_in", not_below_zero(counted[i + OPS]));
  }
}

#endif
