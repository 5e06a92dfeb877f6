/* See count.h. The cost of a change of class is measured at the start and taken off. */
#include "count.h"

#include "fptt.h"
#include "port.h"

#ifdef FPTT_COUNT_CLASSES

static uint64_t counted[FPTT_CLASSES], since, cost;
static int now;

void fptt_count_class(int number) {
  const uint64_t at = fptt_port_instructions();
  counted[now] += at - since - cost;
  now = number;
  since = fptt_port_instructions();
}

void fptt_count_start(void) {
  uint64_t least = UINT64_MAX;
  cost = 0;
  for (int i = 0; i < 8; i++) {
    counted[FPTT_CLASS_other] = 0;
    now = FPTT_CLASS_other;
    fptt_count_class(FPTT_CLASS_other);
    const uint64_t before = counted[FPTT_CLASS_other];
    fptt_count_class(FPTT_CLASS_other);
    const uint64_t one = counted[FPTT_CLASS_other] - before;
    least = one < least ? one : least;
  }
  cost = least;
  for (int i = 0; i < FPTT_CLASSES; i++) counted[i] = 0;
  now = FPTT_CLASS_other;
  since = fptt_port_instructions();
}

void fptt_count_stop(void) { fptt_count_class(FPTT_CLASS_other); }

void fptt_count_print(void (*line)(const char *name, uint64_t value)) {
  static const char *const names[] = {
#define FPTT_CLASS_NAME(name) "class " #name,
      FPTT_CLASS_LIST(FPTT_CLASS_NAME)
#undef FPTT_CLASS_NAME
  };
  for (int i = 0; i < FPTT_CLASSES; i++) line(names[i], counted[i]);
}

/* The update inside a fused gradient-and-update is a class of its own: the linker sends calls of
 * fptt_apply here (--wrap=fptt_apply). */
uint32_t __real_fptt_apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                           const fptt_update_rule *rule, fptt_step step);
uint32_t __wrap_fptt_apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                           const fptt_update_rule *rule, fptt_step step);
uint32_t __wrap_fptt_apply(size_t n, const float *g, const fptt_learned *at, size_t offset,
                           const fptt_update_rule *rule, fptt_step step) {
  const int before = now;
  fptt_count_class(FPTT_CLASS_EWO_SGD);
  const uint32_t bits = __real_fptt_apply(n, g, at, offset, rule, step);
  fptt_count_class(before);
  return bits;
}

#endif
