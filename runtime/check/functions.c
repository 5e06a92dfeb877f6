/* Counts the instructions of sigmoid, tanh, FPTT's update and, beside them, of a plain product
 * (`fptt bench --device`). Compiled with the flags of the cells; linked with updates.c, which has its
 * own. Lines of name, elements, instructions. Everything of a loop counts: loads, stores, the loop
 * itself, the call, and reading the counter; nothing is taken off. */
#include <string.h>

#include "fptt_fused.h"
#include "port.h"
#include "target.h"

enum { FUNCTIONS = 1024, PARAMETERS = 4096, WIDTH = 128 };

/* out of the compiler's sight: it must neither take the loop apart nor know what goes in */
#define APART __attribute__((noinline, noclone))

static float from[PARAMETERS], to[PARAMETERS], lambda[PARAMETERS], mean[PARAMETERS];
static float matrix[WIDTH * WIDTH];

APART static void sigmoids(size_t n, const float *restrict x, float *restrict y) {
  for (size_t i = 0; i < n; i++) y[i] = FPTT_SIGMOID(x[i]);
}

APART static void tanhs(size_t n, const float *restrict x, float *restrict y) {
  for (size_t i = 0; i < n; i++) y[i] = FPTT_TANH(x[i]);
}

/* y = W x as it is written down, with a fused multiply-add */
APART static void plain(size_t n, const float *restrict w, const float *restrict x,
                        float *restrict y) {
  for (size_t row = 0; row < n; row++) {
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++) sum = __builtin_fmaf(w[row * n + i], x[i], sum);
    y[row] = sum;
  }
}

static void number(uint64_t value) {
  char digits[24];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  fptt_port_write(" ", 1);
  fptt_port_write(digits + at, sizeof digits - at);
}

static void line(const char *name, uint64_t elements, uint64_t instructions) {
  fptt_port_write(name, strlen(name));
  number(elements);
  number(instructions);
  fptt_port_write("\n", 1);
}

/* From `low` upwards, `width` in all. */
static void spread(float *values, size_t n, float low, float width) {
  for (size_t i = 0; i < n; i++) values[i] = low + width * (float)i / (float)n;
}

int main(void) {
  uint64_t before, after;
  spread(from, FUNCTIONS, -8.0f, 16.0f); /* what cells see; far arguments take a longer way */
  before = fptt_port_instructions();
  sigmoids(FUNCTIONS, from, to);
  after = fptt_port_instructions();
  line("sigmoid", FUNCTIONS, after - before);
  before = fptt_port_instructions();
  tanhs(FUNCTIONS, from, to);
  after = fptt_port_instructions();
  line("tanh", FUNCTIONS, after - before);

  /* FPTT around plain SGD: mode "code", beta 1/2 */
  static const fptt_update_rule rule = {.optimizer = FPTT_SGD,
                                        .wrapped = 1,
                                        .alpha = 0.1f,
                                        .beta = 0.5f,
                                        .one_minus_beta = 0.5f,
                                        .beta_over_alpha = 5.0f,
                                        .pull = 1.0f};
  const fptt_step step = {.lr = 0.01f, .factor = 1.0f, .correction1 = 1.0f, .correction2 = 1.0f};
  const fptt_learned learned = {.theta = to,
                                .lambda = lambda,
                                .mean = mean,
                                .runs = 1,
                                .length = PARAMETERS,
                                .stride = PARAMETERS};
  spread(from, PARAMETERS, -1.0f, 2.0f);
  spread(to, PARAMETERS, 1.0f, -2.0f);
  spread(lambda, PARAMETERS, -0.1f, 0.3f);
  spread(mean, PARAMETERS, 0.9f, -1.8f);
  before = fptt_port_instructions();
  const uint32_t largest = fptt_apply(PARAMETERS, from, &learned, 0, &rule, step);
  after = fptt_port_instructions();
  line("update", PARAMETERS, after - before);

  spread(matrix, (size_t)WIDTH * WIDTH, -1.0f, 2.0f);
  before = fptt_port_instructions();
  plain(WIDTH, matrix, from, mean);
  after = fptt_port_instructions();
  line("plain_product", (uint64_t)WIDTH * WIDTH, after - before);
  fptt_port_exit(largest == 0); /* theta is not zero */
}
