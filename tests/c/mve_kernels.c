/* Compares the vector kernels of runtime/src/mve with the scalar ones they stand for, on random
 * numbers and odd sizes. Runs on a bare Cortex-M55 (tests/test_device_mve.py).
 *
 * Both are compiled beforehand, with FPTT_SUFFIX _plain and _mve. Every array lies in a field of
 * NaNs and starts at any float; what a kernel may not write must be the same bits afterwards. */
#include <string.h>

#include "fptt_math.h"
#include "kernels.h"

#define PLAIN(result, name, arguments) result fptt_##name##_plain arguments;
#define VECTOR(result, name, arguments) result fptt_##name##_mve arguments;
FPTT_KERNEL_LIST(PLAIN)
FPTT_KERNEL_LIST(VECTOR)

/* -- the machine ------------------------------------------------------------------------------ */

extern char stack_top[];
void reset(void);

static void call_host(int what, const void *with) {
  register int r0 __asm__("r0") = what;
  register const void *r1 __asm__("r1") = with;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(const char *text) { call_host(4, text); }

static void leave(int code) {
  const uint32_t how[2] = {0x20026, (uint32_t)code};
  call_host(0x20, how);
  for (;;) continue;
}

static void fault(void) {
  say("fault\n");
  leave(3);
}

__attribute__((used, section(".vectors"))) static const void *const vectors[16] = {
    stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault, (const void *)fault};

static void say_number(uint32_t number) {
  char text[12];
  size_t at = sizeof text;
  text[--at] = 0;
  do text[--at] = (char)('0' + number % 10);
  while (number /= 10);
  say(text + at);
}

/* -- numbers ---------------------------------------------------------------------------------- */

static uint32_t state = 1;

static uint32_t any(uint32_t below) {
  state = state * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)(state >> 8) * below) >> 24);
}

/* In (-1, 1), never subnormal: the vectors take those as zero. */
static float number(void) { return ((float)any(1u << 22) + 0.5f) * 0x1p-21f - 1.0f; }

/* Numbers around the edges of sigmoid and tanh. */
static float steep(void) {
  static const float edges[] = {0.0f,    -0.0f,  88.0f, 88.1f,  -87.3365f, -87.34f,
                                9.125f,  -9.125f, 9.02f, 1e-30f, -1e-30f,   200.0f,
                                -200.0f, 1.0f,    3.4e38f, -3.4e38f};
  uint32_t which = any(60);
  if (which == 56) return fptt_float(0x7f800000u);
  if (which == 57) return fptt_float(0xff800000u);
  if (which == 58) return fptt_float(0x7fc00000u);
  if (which < sizeof edges / sizeof *edges) return edges[which];
  return number() * (which < 40 ? 4.0f : 20.0f);
}

#define FIELD 16384
static float field[12][FIELD] __attribute__((section(".outside")));
static float twin[12][FIELD] __attribute__((section(".outside")));
static size_t used[12];
static uint32_t cases, failures;

static void empty(void) {
  for (size_t f = 0; f < 12; f++) {
    for (size_t i = 0; i < used[f]; i++) {
      field[f][i] = twin[f][i] = fptt_float(0x7fc00000u + (uint32_t)i);
    }
    used[f] = 0;
  }
}

/* Rows in field f, for both kernels. */
typedef struct {
  size_t f, begin, stride;
} rows;

static rows new_rows(size_t f, size_t n, size_t width, float (*fill)(void)) {
  rows r = {f, 4 + any(4), width + (any(3) ? any(6) : 0)};
  used[f] = r.begin + n * r.stride + 8;
  if (used[f] > FIELD) say("field too small\n"), leave(2);
  for (size_t i = 0; fill && i < n; i++) {
    for (size_t j = 0; j < width; j++) {
      size_t at = r.begin + i * r.stride + j;
      field[f][at] = twin[f][at] = fill();
    }
  }
  return r;
}

static float *data(rows r, int vector) { return (vector ? twin[r.f] : field[r.f]) + r.begin; }
static fptt_rows of(rows r, int vector) { return (fptt_rows){data(r, vector), r.stride}; }
static const fptt_rows no_rows = {NULL, 0};

/* The same bits; but what the vectors compute from subnormal numbers, they compute from zero. */
static int same(float a, float b) {
  const float apart = a < b ? b - a : a - b;
  return fptt_bits(a) == fptt_bits(b) || (a != a && b != b) || apart <= 0x1p-124f;
}

/* All fields alike? Bits, or, where a sum may be rounded otherwise, to within `error`. */
static void compare(const char *name, float error) {
  int wrong = 0;
  cases++;
  for (size_t f = 0; f < 12; f++) {
    for (size_t i = 0; i < used[f]; i++) {
      const float a = field[f][i], b = twin[f][i], apart = a < b ? b - a : a - b;
      const int nans = a != a && b != b;
      const int untouched = fptt_bits(a) - 0x7fc00000u == (uint32_t)i && i; /* never written */
      if (untouched) {
        wrong |= fptt_bits(a) != fptt_bits(b);
      } else if (error == 0.0f) {
        wrong |= !same(a, b);
      } else {
        wrong |= !nans && !(apart <= error);
      }
    }
  }
  if (!wrong) return;
  failures++;
  if (failures > 20) return;
  say(name), say(" differs, case "), say_number(cases), say("\n");
}

/* -- products --------------------------------------------------------------------------------- */

static const size_t widths[] = {1,  2,  3,  4,  5,  7,  8,  10, 13, 16,
                                23, 29, 30, 31, 36, 37, 41, 64, 130};
static const size_t inners[] = {1, 2, 3, 4, 5, 6, 7, 9, 12, 19, 64, 175, 176, 177, 179, 357};
#define ANY(list) (list)[any(sizeof(list) / sizeof *(list))]

static void products(void) {
  empty();
  size_t n = 1 + any(9), cols = ANY(widths), in1 = any(8) ? ANY(inners) : 0;
  size_t in2 = any(2) ? ANY(inners) : 0;
  if (in1 * (cols + 6) > FIELD - 20) in1 = 5;
  if (in2 * (cols + 6) > FIELD - 20) in2 = 17;
  rows x1 = new_rows(0, n, in1, number), w1 = new_rows(1, in1, cols, number);
  rows x2 = new_rows(2, n, in2, number), w2 = new_rows(3, in2, cols, number);
  rows bias = new_rows(4, 1, cols, number), start = new_rows(5, n, cols, number);
  int with_bias = any(2) == 0, with_start = (int)any(3);
  rows y = with_start == 2 ? start : new_rows(6, n, cols, NULL);
  for (int v = 0; v < 2; v++) {
    fptt_factors one = {in1, of(x1, v), data(w1, v), w1.stride};
    fptt_factors two = {in2, of(x2, v), data(w2, v), w2.stride};
    (v ? fptt_product_mve : fptt_product_plain)(n, cols, one, two, with_bias ? data(bias, v) : NULL,
                                                with_start ? of(start, v) : no_rows, of(y, v));
  }
  compare("product", 2e-7f * (float)(in1 + in2 + 10));
}

static void products_transposed(void) {
  empty();
  size_t n = 1 + any(9), cols = ANY(widths), inner = any(20) ? ANY(inners) : 0;
  if ((inner + 6) * cols > FIELD - 20) cols = 7;
  rows x = new_rows(0, n, inner, number), w = new_rows(1, cols, inner, number);
  rows bias = new_rows(2, 1, cols, number), start = new_rows(3, n, cols, number);
  int with_bias = any(2) == 0, with_start = (int)any(3);
  rows y = with_start == 2 ? start : new_rows(4, n, cols, NULL);
  for (int v = 0; v < 2; v++) {
    (v ? fptt_product_transposed_mve : fptt_product_transposed_plain)(
        n, inner, cols, of(x, v), data(w, v), w.stride, with_bias ? data(bias, v) : NULL,
        with_start ? of(start, v) : no_rows, of(y, v));
  }
  compare("product_transposed", 2e-7f * (float)(inner + 10));
}

/* Spans of rows in fields 0 (p) and 1 (q): up to three, some empty, apart from each other. */
static size_t new_spans(fptt_span spans[2][3], size_t a, size_t b, int with_p, rows *p, rows *q,
                        size_t *total) {
  size_t count = 1 + any(3), at = 0;
  size_t most = any(4) ? 12 : 90;
  int close = a == 1 && any(2); /* the numbers of a line side by side */
  *p = close ? new_rows(0, 1, 3 * most, number) : new_rows(0, 3 * most, a, number);
  if (close) p->stride = 1;
  *q = new_rows(1, 3 * most, b, number);
  *total = 0;
  for (size_t s = 0; s < count; s++) {
    size_t n = any(most);
    for (int v = 0; v < 2; v++) {
      spans[v][s].p = with_p ? data(*p, v) + at * p->stride : NULL;
      spans[v][s].q = data(*q, v) + at * q->stride;
      spans[v][s].rows = n;
    }
    at += n + (any(2) && at + n < most * (s + 1));
    *total += n;
  }
  return count;
}

static void gradients(void) {
  empty();
  static const size_t lines[] = {1, 1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 29};
  size_t a = ANY(lines), b = ANY(widths), total;
  int with_p = any(6) != 0, with_start = (int)any(3);
  if (!with_p) a = 1;
  if (b > 41) b = 41 + any(9);
  fptt_span spans[2][3];
  rows p, q;
  size_t count = new_spans(spans, a, b, with_p, &p, &q, &total);
  rows start = new_rows(2, a, b, number);
  rows g = with_start == 2 ? start : new_rows(3, a, b, NULL);
  size_t first = any((uint32_t)a), last = first + any((uint32_t)(a - first) + 1);
  if (g.stride != start.stride) with_start = with_start == 1 ? 0 : with_start;
  for (int v = 0; v < 2; v++) {
    (v ? fptt_gradient_mve : fptt_gradient_plain)(spans[v], count, first, last, b, p.stride,
                                                  q.stride, with_start ? data(start, v) : NULL,
                                                  data(g, v), g.stride);
  }
  compare("gradient", 2e-7f * (float)(total + 10));
}

/* -- updates ---------------------------------------------------------------------------------- */

static fptt_update_rule any_rule(void) {
  fptt_update_rule rule = {.optimizer = (fptt_optimizer)any(3),
                           .wrapped = any(3) != 0,
                           .momentum = 0.9f,
                           .beta1 = 0.9f,
                           .one_minus_beta1 = 0.1f,
                           .beta2 = 0.99f,
                           .one_minus_beta2 = 0.01f,
                           .epsilon = 1e-3f,
                           .alpha = 0.3f,
                           .beta = 0.4f,
                           .one_minus_beta = 0.6f,
                           .beta_over_alpha = 1.3f,
                           .pull = any(2) ? 1.0f : 0.5f};
  rule.directed = rule.wrapped && any(4) == 0;
  return rule;
}

static fptt_step any_step(void) {
  return (fptt_step){
      .lr = 0.1f, .factor = any(2) ? 1.0f : 0.7f, .correction1 = 0.3f, .correction2 = 0.2f};
}

static float positive(void) { return number() * 0.4f + 0.5f; }

/* What is learnt, in fields 4 to 8, all with the stride of the first. */
static void new_learned(fptt_learned learned[2], const fptt_update_rule *rule, size_t runs,
                        size_t length, float (*fill)(void)) {
  rows theta = new_rows(4, runs, length, fill);
  for (size_t f = 5; f < 9; f++) {
    rows same = theta;
    same.f = f;
    used[f] = used[4];
    for (size_t i = 0; i < runs * theta.stride; i++) {
      data(same, 0)[i] = data(same, 1)[i] = f == 8 ? positive() : fill();
    }
  }
  for (int v = 0; v < 2; v++) {
    rows at[5];
    for (size_t f = 0; f < 5; f++) at[f] = (rows){4 + f, theta.begin, theta.stride};
    learned[v] = (fptt_learned){.theta = data(at[0], v),
                                .lambda = rule->wrapped ? data(at[1], v) : NULL,
                                .mean = rule->wrapped ? data(at[2], v) : NULL,
                                .first = rule->optimizer == FPTT_SGD ? NULL : data(at[3], v),
                                .second = rule->optimizer == FPTT_ADAM ? data(at[4], v) : NULL,
                                .runs = runs,
                                .length = length,
                                .stride = theta.stride,
                                .element_by_place = 1};
  }
}

static void same_largest(const char *name, uint32_t a, uint32_t b, float error) {
  const float x = fptt_float(a), y = fptt_float(b), apart = x < y ? y - x : x - y;
  if (a == b || (a > 0x7f800000u && b > 0x7f800000u) || (error > 0.0f && apart <= error)) return;
  failures++;
  say(name), say(": the largest differs, case "), say_number(cases), say("\n");
}

static void updates(float (*fill)(void)) {
  empty();
  const fptt_update_rule rule = any_rule();
  const fptt_step step = any_step();
  size_t runs = 1 + any(3), length = any(5) ? 1 + any(40) : 250 + any(20);
  fptt_learned learned[2];
  new_learned(learned, &rule, runs, length, fill);
  uint32_t largest[2];
  for (int v = 0; v < 2; v++) {
    static float g[FIELD];
    uint32_t before = state;
    for (size_t i = 0; i < runs * learned[v].stride; i++) g[i] = fill();
    if (!v) state = before;
    largest[v] = (v ? fptt_update_mve : fptt_update_plain)(&learned[v], g, &rule, step);
  }
  compare("update", 0.0f);
  same_largest("update", largest[0], largest[1], 0.0f);
}

static void gradient_updates(void) {
  empty();
  static const size_t lines[] = {1, 1, 2, 3, 5, 7, 8, 12, 20};
  const fptt_update_rule rule = any_rule();
  const fptt_step step = any_step();
  size_t a = ANY(lines), b = any(6) ? ANY(widths) : 65 + any(9), total;
  int with_p = any(6) != 0, backwards = (int)any(2);
  if (!with_p) a = 1;
  if (b > 41) b = 41 + any(9);
  fptt_span spans[2][3];
  fptt_learned learned[2];
  rows p, q;
  size_t count = new_spans(spans, a, b, with_p, &p, &q, &total);
  new_learned(learned, &rule, a, b, number);
  size_t first = any((uint32_t)a), last = first + any((uint32_t)(a - first) + 1);
  uint32_t largest[2];
  static float tile[20 * FPTT_TILE_COLUMNS];
  float *scratch = any(2) ? tile : NULL;
  for (int v = 0; v < 2; v++) {
    largest[v] = (v ? fptt_gradient_update_mve : fptt_gradient_update_plain)(
        spans[v], count, first, last, p.stride, q.stride, &learned[v], &rule, step, scratch,
        backwards);
  }
  /* Adam divides by the square root of second / 0.2, at least 0.1: errors grow */
  const float error = (rule.optimizer == FPTT_ADAM ? 1e-5f : 1e-6f) * (float)(total + 10);
  compare("gradient_update", error);
  same_largest("gradient_update", largest[0], largest[1], error);
}

/* -- cells ------------------------------------------------------------------------------------ */

static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 9, 16, 31, 63, 64, 65, 130, 200};

static void lstm(int backward) {
  empty();
  size_t n = 1 + any(5), h = ANY(sizes);
  float (*fill)(void) = any(2) ? number : steep;
  rows a = new_rows(0, n, 4 * h, fill), c_before = new_rows(1, n, h, number);
  int in_place = any(2) == 0;
  if (!backward) {
    rows gates = in_place ? a : new_rows(2, n, 4 * h, NULL);
    rows c = in_place ? c_before : new_rows(3, n, h, NULL), state_h = new_rows(4, n, h, NULL);
    for (int v = 0; v < 2; v++) {
      (v ? fptt_lstm_forward_mve : fptt_lstm_forward_plain)(
          n, h, of(a, v), of(c_before, v), of(gates, v), of(c, v), of(state_h, v));
    }
    compare("lstm_forward", 0.0f);
    return;
  }
  rows c = new_rows(2, n, h, fill), dh = new_rows(3, n, h, number), dc = new_rows(4, n, h, number);
  rows da = in_place ? a : new_rows(5, n, 4 * h, NULL);
  rows dc_before = in_place ? dc : new_rows(6, n, h, NULL);
  for (int v = 0; v < 2; v++) {
    (v ? fptt_lstm_backward_mve : fptt_lstm_backward_plain)(n, h, of(a, v), of(c_before, v),
                                                            of(c, v), of(dh, v), of(dc, v),
                                                            of(da, v), of(dc_before, v));
  }
  compare("lstm_backward", 0.0f);
}

static void gru(int backward) {
  empty();
  size_t n = 1 + any(5), h = ANY(sizes);
  rows a = new_rows(0, n, 4 * h, any(2) ? number : steep), h_before = new_rows(1, n, h, number);
  int in_place = any(2) == 0;
  if (!backward) {
    rows gates = in_place ? a : new_rows(2, n, 4 * h, NULL);
    rows state_h = in_place ? h_before : new_rows(3, n, h, NULL);
    for (int v = 0; v < 2; v++) {
      (v ? fptt_gru_forward_mve : fptt_gru_forward_plain)(n, h, of(a, v), of(h_before, v),
                                                          of(gates, v), of(state_h, v));
    }
    compare("gru_forward", 0.0f);
    return;
  }
  rows dh = new_rows(2, n, h, number), da = in_place ? a : new_rows(3, n, 4 * h, NULL);
  rows dh_before = in_place ? dh : new_rows(4, n, h, NULL);
  for (int v = 0; v < 2; v++) {
    (v ? fptt_gru_backward_mve : fptt_gru_backward_plain)(n, h, of(a, v), of(h_before, v),
                                                          of(dh, v), of(da, v), of(dh_before, v));
  }
  compare("gru_backward", 0.0f);
}

static void rnn(int backward) {
  empty();
  size_t n = 1 + any(5), h = ANY(sizes);
  rows a = new_rows(0, n, h, any(2) ? number : steep);
  if (!backward) {
    rows y = any(2) ? a : new_rows(1, n, h, NULL);
    for (int v = 0; v < 2; v++) {
      (v ? fptt_rnn_forward_mve : fptt_rnn_forward_plain)(n, h, of(a, v), of(y, v));
    }
    compare("rnn_forward", 0.0f);
    return;
  }
  rows dh = new_rows(1, n, h, number), da = any(2) ? dh : new_rows(2, n, h, NULL);
  for (int v = 0; v < 2; v++) {
    (v ? fptt_rnn_backward_mve : fptt_rnn_backward_plain)(n, h, of(a, v), of(dh, v), of(da, v));
  }
  compare("rnn_backward", 0.0f);
}

__attribute__((noinline)) static void run(void) {
  for (size_t f = 0; f < 12; f++) used[f] = FIELD;
  cases = failures = 0;
  state = SEED;
  for (int turn = 0; turn < TURNS; turn++) {
    for (int again = 0; again < 6; again++) {
      products(), products_transposed(), gradients(), gradient_updates();
    }
    for (int again = 0; again < 3; again++) updates(number);
    updates(steep);
    for (int backward = 0; backward < 2; backward++) lstm(backward), gru(backward), rnn(backward);
  }
  say_number(cases), say(" cases, "), say_number(failures), say(" differ\n");
  leave(failures != 0);
}

void reset(void) { /* nothing may touch a register of the vectors before */
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: floating point and vectors */
  __asm__ volatile("dsb\nisb" ::: "memory");
  run();
}
