/* Instructions that the matrix products of an LSTM with 128 cells take, batch 1 and 4, 28 steps:
 * lines of name, batch, instructions, multiply-adds. */
#include "target.h"

void say(const char *text);
uint64_t instructions(void);
int run(void);

enum { HIDDEN = 128, WIDE = 4 * HIDDEN, STEPS = 28, BATCH = 4 };

static fptt_activation state[STEPS * BATCH * HIDDEN], gates[STEPS * BATCH * WIDE];
static fptt_activation input[STEPS * BATCH], out[BATCH * WIDE];
static fptt_parameter weights[(HIDDEN + 1) * WIDE], bias[WIDE];

/* The update that is counted elsewhere. */
uint32_t FPTT_KERNEL(apply)(size_t n, const float *along, const fptt_learned *at, size_t offset,
                            const fptt_update_rule *rule, fptt_step step) {
  (void)along, (void)at, (void)offset, (void)rule, (void)step;
  return (uint32_t)n;
}

static void number(uint64_t value) {
  char digits[24];
  size_t at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + value % 10);
  while (value /= 10);
  say(" ");
  say(digits + at);
}

static void report(const char *name, size_t batch, uint64_t count, uint64_t products) {
  say(name);
  number(batch);
  number(count);
  number(products);
  say("\n");
}

int run(void) {
  const fptt_rows none = {0};
  for (size_t n = 1; n <= BATCH; n += BATCH - 1) {
    fptt_factors one = {1, {input, 1}, weights + HIDDEN * WIDE, WIDE};
    fptt_factors two = {HIDDEN, {state, HIDDEN}, weights, WIDE};
    fptt_span span = {state, gates, STEPS * n};
    fptt_learned learned = {.theta = weights, .runs = HIDDEN, .length = WIDE, .stride = WIDE};
    fptt_update_rule rule = {0};
    fptt_step step = {0};
    uint64_t before = instructions();
    FPTT_KERNEL(product)(n, WIDE, one, two, bias, none, (fptt_rows){out, WIDE});
    report("forward", n, instructions() - before, n * WIDE * (HIDDEN + 1));
    before = instructions();
    FPTT_KERNEL(product_transposed)
    (n, WIDE, HIDDEN, (fptt_rows){gates, WIDE}, weights, WIDE, NULL, none,
     (fptt_rows){out, HIDDEN});
    report("backward", n, instructions() - before, n * WIDE * HIDDEN);
    before = instructions();
    FPTT_KERNEL(gradient_update)(&span, 1, 0, HIDDEN, HIDDEN, WIDE, &learned, &rule, step, NULL, 0);
    span.p = input;
    learned.runs = 1;
    FPTT_KERNEL(gradient_update)(&span, 1, 0, 1, 1, WIDE, &learned, &rule, step, NULL, 0);
    report("gradient", n, instructions() - before, STEPS * n * WIDE * (HIDDEN + 1));
  }
  return 0;
}
