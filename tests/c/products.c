/* The matrix products against plain loops, for every odd size; runs on the host and bare on a
 * Cortex-M4. Prints "ok" and a checksum of all results, or the first one that is wrong.
 *
 * The checksum is over the bits, so that two builds that should agree to the last bit (assembly and
 * its C twin) can be compared.
 */
#include "target.h"

void say(const char *text);

/* What stands around the results, and must go on to. */
#define GUARD 12345.0f
enum { MOST = 9, WIDTH = 140, DEEP = 40, SPACE = MOST * (WIDTH + 5) };
/* more than two of gradient_update's batches of rows */
enum { LONG = 2 * FPTT_TILE_ROWS + 90 };

static fptt_activation x[MOST * (DEEP + 3) + 64], x_two[MOST * (DEEP + 3)], y[SPACE], start[SPACE];
static fptt_activation p[LONG * (MOST + 3)], q[LONG * 64];
static fptt_parameter w[(DEEP + 1) * (WIDTH + 5)], w_two[(DEEP + 1) * (WIDTH + 5)], bias[WIDTH];
static fptt_parameter g[SPACE];
static float tile[MOST * FPTT_TILE_COLUMNS], applied[SPACE];
/* its numbers are of [-1, 1) */
static uint32_t state = 1, checksum = 2166136261u;
static int wrong;
static size_t first_applied, last_applied;

static float draw(void) {
  state = state * 1664525u + 1013904223u;
  return (float)((int32_t)(state >> 8) - (1 << 23)) * 0x1p-23f;
}

static size_t below(size_t n) {
  state = state * 1664525u + 1013904223u;
  return (state >> 8) % n;
}

static void fill(fptt_activation *to, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = FPTT_PUT_A(draw());
}

static void fill_parameters(fptt_parameter *to, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] = FPTT_PUT_P(draw());
}

static void number(size_t value) {
  char digits[24];
  size_t at = sizeof digits;
  digits[--at] = 0;
  do digits[--at] = (char)('0' + value % 10);
  while (value /= 10);
  say(digits + at);
}

/* A result against what plain loops have, with `terms` of at most 1 added up: either is off by no
 * more than an ulp of the sum for every term. */
static void expect(const char *what, float found, float wanted, size_t terms, int rounded,
                   size_t n, size_t a, size_t b) {
  float error = found - wanted, most = 1e-7f * (float)((terms + 4) * (terms + 4));
  if (rounded) most += (wanted < 0 ? -wanted : wanted) * 0.004f;
  checksum = (checksum ^ fptt_bits(found)) * 16777619u;
  if ((error <= most && error >= -most) || wrong) return;
  wrong = 1;
  say(what);
  say(" is wrong: rows ");
  number(n);
  say(", sizes ");
  number(a);
  say(" ");
  number(b);
  say("\n");
}

/* The stand-in for updates.c keeps what it is given. */
uint32_t FPTT_KERNEL(apply)(size_t n, const float *along, const fptt_learned *at, size_t offset,
                            const fptt_update_rule *rule, fptt_step step) {
  (void)at, (void)rule, (void)step;
  if (first_applied == SIZE_MAX) first_applied = offset;
  last_applied = offset;
  for (size_t i = 0; i < n; i++) applied[offset + i] += along[i];
  return (uint32_t)n;
}

static void try_product(size_t n, size_t inner, size_t inner_two, size_t cols) {
  size_t x_stride = inner + below(3), y_stride = cols + below(4), w_stride = cols + below(4);
  size_t place = below(2);
  fptt_factors one = {inner, {x + place, x_stride}, w, w_stride};
  fptt_factors two = {inner_two, {x_two, inner_two}, w_two, cols};
  fptt_rows from = {below(2) ? start : NULL, y_stride}, to = {y, y_stride};
  const fptt_parameter *b = below(2) ? bias : NULL;
  for (size_t i = 0; i < SPACE; i++) y[i] = FPTT_PUT_A(GUARD);
  if (!inner_two) two = (fptt_factors){0};
  if (from.data && below(2)) { /* in place */
    memcpy(y, start, sizeof start);
    from.data = y;
  }
  FPTT_KERNEL(product)(n, cols, one, two, b, from, to);
  for (size_t r = 0; r < n; r++) {
    for (size_t j = 0; j < y_stride; j++) {
      size_t at = r * y_stride + j;
      float sum = from.data ? FPTT_GET_A(start[at]) : 0;
      if (j >= cols) {
        if (r == n - 1) continue;
        expect("a gap", FPTT_GET_A(y[at]), from.data == y ? sum : GUARD, 0, 1, n, inner, cols);
        continue;
      }
      if (b) sum += FPTT_GET_P(b[j]);
      for (size_t k = 0; k < inner; k++) {
        sum += FPTT_GET_A(x[place + r * x_stride + k]) * FPTT_GET_P(w[k * w_stride + j]);
      }
      for (size_t k = 0; k < inner_two; k++) {
        sum += FPTT_GET_A(x_two[r * inner_two + k]) * FPTT_GET_P(w_two[k * cols + j]);
      }
      expect("product", FPTT_GET_A(y[at]), sum, inner + inner_two, sizeof *y == 2, n, inner, cols);
    }
  }
}

static void try_transposed(size_t n, size_t inner, size_t cols) {
  size_t x_stride = inner + below(3), y_stride = cols + below(4), w_stride = inner + below(3);
  fptt_rows from = {below(2) ? start : NULL, y_stride}, to = {y, y_stride};
  const fptt_parameter *b = below(3) ? NULL : bias;
  for (size_t i = 0; i < SPACE; i++) y[i] = FPTT_PUT_A(GUARD);
  FPTT_KERNEL(product_transposed)
  (n, inner, cols, (fptt_rows){x, x_stride}, w, w_stride, b, from, to);
  for (size_t r = 0; r < n; r++) {
    for (size_t j = 0; j < y_stride; j++) {
      size_t at = r * y_stride + j;
      float sum = from.data ? FPTT_GET_A(start[at]) : 0;
      if (j >= cols) {
        expect("a gap", FPTT_GET_A(y[at]), GUARD, 0, 1, n, inner, cols);
        continue;
      }
      if (b) sum += FPTT_GET_P(b[j]);
      for (size_t k = 0; k < inner; k++) {
        sum += FPTT_GET_A(x[r * x_stride + k]) * FPTT_GET_P(w[j * w_stride + k]);
      }
      expect("product_transposed", FPTT_GET_A(y[at]), sum, inner, sizeof *y == 2, n, inner, cols);
    }
  }
}

/* Rows in spans, and the sum of lines [first, last). */
static void try_gradient(size_t rows, size_t lines, size_t cols) {
  size_t p_stride = lines + below(3), q_stride = cols + below(3), g_stride = cols + below(3);
  size_t first = below(lines), last = first + 1 + below(lines - first), count = 0, at = 0;
  int with_p = below(4) != 0, backwards = (int)below(2);
  fptt_span spans[4];
  fptt_learned learned = {0};
  fptt_update_rule rule = {0};
  fptt_step step = {0};
  if (!with_p) lines = 1, first = 0, last = 1;
  memset(applied, 0, sizeof applied);
  while (at < rows) { /* two spans may touch or leave rows out; the last goes to the end */
    size_t take = count == 3 ? rows - at : 1 + below(rows - at);
    spans[count++] = (fptt_span){with_p ? p + at * p_stride : NULL, q + at * q_stride, take};
    at += take;
  }
  first_applied = SIZE_MAX;
  learned.length = cols;
  learned.stride = g_stride;
  FPTT_KERNEL(gradient_update)
  (spans, count, first, last, p_stride, q_stride, &learned, &rule, step, below(2) ? tile : NULL,
   backwards);
  if (last - first > 4 && cols < 64) {
    expect("the direction", first_applied > last_applied, (float)backwards, 0, 0, rows, lines,
           cols);
  }
  FPTT_KERNEL(gradient)(spans, count, first, last, cols, p_stride, q_stride, NULL, g, g_stride);
  for (size_t l = 0; l < lines; l++) {
    for (size_t j = 0; j < cols; j++) {
      float sum = 0;
      if (l < first || l >= last) {
        expect("a line left out", applied[l * g_stride + j], 0, 0, 0, rows, lines, cols);
        continue;
      }
      for (size_t i = 0; i < rows; i++) {
        float number = with_p ? FPTT_GET_A(p[i * p_stride + l]) : 1;
        sum += number * FPTT_GET_A(q[i * q_stride + j]);
      }
      expect("gradient_update", applied[l * g_stride + j], sum, rows, 0, rows, lines, cols);
      expect("gradient", FPTT_GET_P(g[l * g_stride + j]), sum, rows, sizeof *g == 2, rows, lines,
             cols);
    }
  }
}

int run(void);
int run(void) {
  static const size_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 17, 23, 24, 25, 33, 132, 137};
  fill(x, sizeof x / sizeof *x);
  fill(x_two, sizeof x_two / sizeof *x_two);
  fill(start, SPACE);
  fill(p, sizeof p / sizeof *p);
  fill(q, sizeof q / sizeof *q);
  fill_parameters(w, sizeof w / sizeof *w);
  fill_parameters(w_two, sizeof w_two / sizeof *w_two);
  fill_parameters(bias, WIDTH);
  for (size_t n = 1; n <= MOST; n++) {
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
      for (size_t inner = 1; inner <= DEEP; inner += 1 + below(6)) {
        try_product(n, inner, below(2) * below(20), widths[i]);
        if (widths[i] <= DEEP) try_transposed(n, inner, widths[i]);
      }
      try_gradient(1 + below(2 * n), n, widths[i] < 60 ? widths[i] : 60);
    }
  }
  for (size_t n = 1; n <= MOST; n += 2) try_gradient(LONG - below(20), n, 61 - 3 * n);
  say(wrong ? "wrong " : "ok ");
  number(checksum);
  say("\n");
  return wrong;
}
