/* Runs the vector kernels of runtime/src/rvv and the scalar ones they replace on the same random
 * memory, and compares all of that memory afterwards, gaps between the rows included.
 *
 * Both are linked under suffixes, `_scalar` and `_vector`. Everything must agree to the bit (but
 * for which NaN it is, and the sign of zero), except the sums of product_transposed, which are added
 * up in another order. Prints "passed" and the number of trials, or the first difference.
 */
#include <float.h>
#include <string.h>

#include "bare_rv64.h"

#define FPTT_SUFFIX _vector
#include "target.h"

extern const fptt_kernels fptt_kernels_scalar, fptt_kernels_vector;

#ifndef TRIALS
#define TRIALS 60
#endif
#define MEMORY 200000

static _Alignas(64) uint8_t memory[2][MEMORY];
static size_t used;
static const char *kernel;
static unsigned trial;

/* -- random numbers -------------------------------------------------------------------------- */

static uint64_t state = 0x9E3779B97F4A7C15u;

static uint32_t random_word(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32);
}

static size_t random_size(size_t from, size_t to) { return from + random_word() % (to - from + 1); }

static float random_number(void) { return ((float)(random_word() >> 8) * 0x1p-23f - 1.0f); }

static int specials; /* one number in eight is one of these */

static float random_value(float scale) {
  static const uint32_t bits[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x00000000, 0x80000000,
                                  0x00000001, 0x80000123, 0x7f7fffff, 0xff7fffff, 0xc2aeac4f,
                                  0xc2aeac50, 0x42b00000, 0x42b00001, 0x41120000, 0x41120001,
                                  0x3f800000, 0x00800000, 0xffc12345};
  if (specials && random_word() % 8 == 0) {
    return fptt_float(bits[random_word() % (sizeof bits / sizeof *bits)]);
  }
  return random_number() * scale;
}

/* -- operands -------------------------------------------------------------------------------- */

/* An operand is a distance into both memories. */
typedef struct {
  size_t at, stride;
} operand;

enum { A, P, F }; /* activations, parameters, floats */

static size_t item(int kind) {
  return kind == A ? sizeof(fptt_activation) : kind == P ? sizeof(fptt_parameter) : sizeof(float);
}

static void put(int kind, size_t at, float value) {
  if (item(kind) == 2) {
    const fptt_bf16 half = fptt_narrow(value);
    memcpy(memory[0] + at, &half, 2);
  } else {
    memcpy(memory[0] + at, &value, 4);
  }
}

static float get(int which, int kind, size_t at) {
  float value;
  fptt_bf16 half;
  if (item(kind) == 2) {
    memcpy(&half, memory[which] + at, 2);
    return fptt_widen(half);
  }
  memcpy(&value, memory[which] + at, 4);
  return value;
}

/* n rows of `width` random numbers, with gaps of NaN behind each, at an odd place */
static operand random_rows(int kind, size_t n, size_t width, size_t gap, float scale) {
  operand new = {used + item(kind) * random_size(0, 3), width + gap};
  for (size_t r = 0; r < n; r++) {
    for (size_t j = 0; j < width + gap; j++) {
      const size_t at = new.at + (r * new.stride + j) * item(kind);
      put(kind, at, j < width ? random_value(scale) : fptt_float(0x7fc00000u));
    }
  }
  used = (new.at + n * new.stride * item(kind) + 3) / 4 * 4 + 16;
  if (used > MEMORY) {
    bare_text("the test needs more memory\n");
    bare_exit(2);
  }
  return new;
}

static operand some_rows(int kind, size_t n, size_t width, float scale) {
  return random_rows(kind, n, width, random_size(0, 3), scale);
}

static const operand absent = {MEMORY, 0};

static void *address(int which, operand o) { return o.at == MEMORY ? NULL : memory[which] + o.at; }

static fptt_rows rows(int which, operand o) {
  fptt_rows result = {address(which, o), o.stride};
  return result;
}

static void begin(const char *name) {
  kernel = name;
  memset(memory[0], 0xFF, used); /* NaN of both types */
  used = 0;
}

static const fptt_kernels *const kernels[2] = {&fptt_kernels_scalar, &fptt_kernels_vector};

/* for BOTH(which): scalar, then vector kernels, on the same memory */
#define BOTH(which) \
  (int which = (memcpy(memory[1], memory[0], used), 0); which < 2; which++)

static void failed(size_t at, float scalar, float vector) {
  bare_text("DIFFERENT: ");
  bare_text(kernel);
  bare_text(" trial ");
  bare_number(trial);
  bare_text(" byte ");
  bare_number(at);
  bare_text(" scalar ");
  bare_hex(fptt_bits(scalar));
  bare_text(" vector ");
  bare_hex(fptt_bits(vector));
  bare_text("\n");
  bare_exit(1);
}

static int same(float a, float b) { return a == b || (a != a && b != b); }

/* All memory is the same. */
static void compare(void) {
  for (size_t at = 0; at < used; at += 4) {
    float scalar = get(0, F, at), vector = get(1, F, at);
    if (fptt_bits(scalar) == fptt_bits(vector)) continue;
#if FPTT_ACTIVATION_BF16 || FPTT_PARAMETER_BF16
    /* a word is a float or two bfloat16: it agrees as the one or as the other */
    fptt_bf16 half[2][2];
    memcpy(half[0], memory[0] + at, 4);
    memcpy(half[1], memory[1] + at, 4);
    if (same(fptt_widen(half[0][0]), fptt_widen(half[1][0])) &&
        same(fptt_widen(half[0][1]), fptt_widen(half[1][1]))) {
      continue;
    }
#endif
    if (!same(scalar, vector)) failed(at, scalar, vector);
  }
}

static void compare_words(uint32_t scalar, uint32_t vector) {
  if (scalar != vector) failed(MEMORY, fptt_float(scalar), fptt_float(vector));
}

/* -- products -------------------------------------------------------------------------------- */

static void check_product(void) {
  const size_t n = random_size(1, 9), cols = random_size(1, trial % 4 ? 150 : 40);
  const size_t inner = random_size(1, 37), inner2 = trial % 3 ? random_size(0, 20) : 0;
  begin("product");
  const operand x = some_rows(A, n, inner, 1.0f), w = some_rows(P, inner, cols, 1.0f);
  const operand x2 = some_rows(A, n, inner2, 1.0f), w2 = some_rows(P, inner2, cols, 1.0f);
  const operand bias = trial % 2 ? some_rows(P, 1, cols, 1.0f) : absent;
  const operand start = trial % 5 < 2 ? some_rows(A, n, cols, 1.0f) : absent;
  const operand y = trial % 5 == 0 ? start : some_rows(A, n, cols, 1.0f);
  for BOTH(i) {
    fptt_factors one = {inner, rows(i, x), address(i, w), w.stride};
    fptt_factors two = {inner2, rows(i, x2), address(i, w2), w2.stride};
    if (inner2 == 0) two.x.data = NULL, two.w = NULL;
    kernels[i]->product(n, cols, one, two, address(i, bias), rows(i, start), rows(i, y));
  }
  compare();
}

static void check_product_transposed(void) {
  const size_t n = random_size(1, 9), cols = random_size(1, 13);
  const size_t inner = random_size(1, trial % 4 ? 300 : 40);
  begin("product_transposed");
  const operand x = some_rows(A, n, inner, 1.0f), w = some_rows(P, cols, inner, 1.0f);
  const operand bias = trial % 2 ? some_rows(P, 1, cols, 1.0f) : absent;
  const operand start = trial % 5 < 2 ? some_rows(A, n, cols, 1.0f) : absent;
  const operand y = trial % 5 == 0 ? start : some_rows(A, n, cols, 1.0f);
  static uint8_t before[MEMORY], all[MEMORY];
  memcpy(before, memory[0], used);
  for BOTH(i) {
    kernels[i]->product_transposed(n, inner, cols, rows(i, x), address(i, w), w.stride,
                                   address(i, bias), rows(i, start), rows(i, y));
  }
  memcpy(all, memory[1], used);
  for (size_t r = 0; r < n; r++) {
    for (size_t j = 0; j < cols; j++) {
      const size_t at = y.at + (r * y.stride + j) * item(A);
      const float scalar = get(0, A, at), vector = get(1, A, at);
      const float size = (float)inner + 2.0f; /* at least the sum of |terms| */
      const float rounded = item(A) == 2 ? 0x1p-7f * (scalar < 0 ? -scalar : scalar) : 0.0f;
      const float bound = rounded + 8.0f * 0x1p-24f * size;
      if (!(scalar - vector <= bound && vector - scalar <= bound)) failed(at, scalar, vector);
      memcpy(memory[1] + at, memory[0] + at, item(A));
    }
  }
  compare(); /* everything else */
  /* row by row the same bits come out */
  memcpy(memory[1], before, used);
  for (size_t r = 0; r < n; r++) {
    fptt_rows from = rows(1, x), to = rows(1, y), old = rows(1, start);
    from.data = fptt_row(from, r), to.data = fptt_row(to, r);
    if (old.data) old.data = fptt_row(old, r);
    kernels[1]->product_transposed(1, inner, cols, from, address(1, w), w.stride,
                                   address(1, bias), old, to);
  }
  memcpy(memory[0], all, used);
  kernel = "product_transposed, row by row";
  compare();
}

typedef struct {
  operand p[4], q[4];
  size_t rows[4], count, p_stride, q_stride;
} random_spans;

static random_spans make_spans(size_t lines, size_t width, int without_p, size_t most) {
  const int many = most > 100;
  random_spans s = {.count = random_size(many ? 2 : 1, 4),
                    .p_stride = lines + random_size(0, 3),
                    .q_stride = width + random_size(0, 3)};
  for (size_t i = 0; i < s.count; i++) {
    s.rows[i] = random_size(many ? most / 2 : i ? 0 : 1, most);
    s.p[i] = without_p ? absent : random_rows(A, s.rows[i], lines, s.p_stride - lines, 1.0f);
    s.q[i] = random_rows(A, s.rows[i], width, s.q_stride - width, 1.0f);
  }
  return s;
}

static void place_spans(int which, const random_spans *s, fptt_span *to) {
  for (size_t i = 0; i < s->count; i++) {
    fptt_span span = {address(which, s->p[i]), address(which, s->q[i]), s->rows[i]};
    to[i] = span;
  }
}

static void check_gradient(void) {
  const size_t lines = random_size(1, 11), width = random_size(1, trial % 4 ? 150 : 40);
  begin("gradient");
  const random_spans s = make_spans(lines, width, trial % 6 == 5, 9);
  const operand g = some_rows(P, lines, width, 1.0f);
  const operand start = trial % 3 == 0   ? g
                        : trial % 3 == 1 ? random_rows(P, lines, width, g.stride - width, 1.0f)
                                         : absent;
  const size_t first = random_size(0, lines - 1), last = random_size(first, lines);
  for BOTH(i) {
    fptt_span spans[4];
    place_spans(i, &s, spans);
    kernels[i]->gradient(spans, s.count, first, last, width, s.p_stride, s.q_stride,
                         address(i, start), address(i, g), g.stride);
  }
  compare();
}

/* -- updates --------------------------------------------------------------------------------- */

typedef struct {
  operand part[5];
  size_t lines, width, stride;
} learned_place;

static learned_place make_learned(size_t lines, size_t width) {
  learned_place l = {.lines = lines, .width = width, .stride = width + random_size(0, 3)};
  for (int i = 0; i < 5; i++) l.part[i] = random_rows(P, lines, width, l.stride - width, 1.0f);
  for (size_t r = 0; r < lines; r++) { /* second moments are not negative */
    for (size_t j = 0; j < width; j++) {
      const size_t at = l.part[4].at + (r * l.stride + j) * item(P);
      const float value = get(0, P, at);
      put(P, at, value < 0 ? -value : value);
    }
  }
  return l;
}

static fptt_learned learned(int which, const learned_place *l) {
  fptt_learned at = {.theta = address(which, l->part[0]),
                     .lambda = address(which, l->part[1]),
                     .mean = address(which, l->part[2]),
                     .first = address(which, l->part[3]),
                     .second = address(which, l->part[4]),
                     .runs = l->lines,
                     .length = l->width,
                     .stride = l->stride,
                     .element = 77,
                     .element_by_run = trial % 2 ? 1 : 40000,
                     .element_by_place = trial % 2 ? 128 : 1};
  return at;
}

static fptt_update_rule random_rule(void) {
  fptt_update_rule rule = {.optimizer = (fptt_optimizer)(trial % 3),
                           .wrapped = trial % 7 != 6,
                           .directed = trial % 11 == 10,
                           .momentum = 0.9f,
                           .beta1 = 0.9f,
                           .one_minus_beta1 = 0.1f,
                           .beta2 = 0.999f,
                           .one_minus_beta2 = 0.001f,
                           .epsilon = 1e-8f,
                           .alpha = 0.1f,
                           .beta = 0.375f,
                           .one_minus_beta = 0.625f,
                           .beta_over_alpha = 3.75f,
                           .pull = trial % 2 ? 1.0f : 0.5f,
                           .stochastic = trial % 4 == 1};
  return rule;
}

static fptt_step random_step(void) {
  fptt_step step = {0.05f, trial % 2 ? 1.0f : 0.7f, 0.19f, 0.002f,
                    {random_word(), random_word(), random_word()}};
  return step;
}

static void check_gradient_update(void) {
  const int few = trial % 4 != 3; /* or many rows, taken in batches */
  const size_t lines = random_size(few ? 1 : 3, few ? 9 : 7);
  const size_t width = random_size(few ? 1 : 40, few ? 300 : 80);
  begin("gradient_update");
  const random_spans s = make_spans(lines, width, trial % 6 == 5, few ? 5 : 200);
  const learned_place l = make_learned(lines, width);
  const operand tile = random_rows(F, lines, FPTT_TILE_COLUMNS, 0, 1.0f);
  const size_t first = few ? random_size(0, lines - 1) : 0;
  const size_t last = few ? random_size(first, lines) : lines;
  const fptt_update_rule rule = random_rule();
  const fptt_step step = random_step();
  uint32_t largest[2];
  for BOTH(i) {
    fptt_span spans[4];
    const fptt_learned at = learned(i, &l);
    place_spans(i, &s, spans);
    largest[i] = kernels[i]->gradient_update(spans, s.count, first, last, s.p_stride, s.q_stride,
                                             &at, &rule, step,
                                             few && trial % 2 ? NULL : address(i, tile),
                                             trial % 5 < 2);
    if (few && trial % 2) continue;
    memset(address(i, tile), 0, lines * FPTT_TILE_COLUMNS * sizeof(float)); /* scratch */
  }
  compare();
  compare_words(largest[0], largest[1]);
}

static void check_update(void) {
  const size_t lines = random_size(1, 4), width = random_size(1, 600);
  begin("update");
  specials = trial % 3 == 0;
  const learned_place l = make_learned(lines, width);
  const operand g = random_rows(P, lines, width, l.stride - width, 1.0f);
  specials = 0;
  const fptt_update_rule rule = random_rule();
  const fptt_step step = random_step();
  uint32_t largest[2];
  for BOTH(i) {
    const fptt_learned at = learned(i, &l);
    largest[i] = kernels[i]->update(&at, address(i, g), &rule, step);
  }
  compare();
  /* which NaN is the largest is not fixed */
  if (largest[0] <= 0x7F800000u || largest[1] <= 0x7F800000u) compare_words(largest[0], largest[1]);
}

static void check_direction(void) {
  const size_t n = random_size(1, 200);
  begin("direction");
  operand o[5];
  for (int i = 0; i < 5; i++) o[i] = some_rows(P, 1, n, 1.0f);
  for BOTH(i) {
    kernels[i]->direction(n, address(i, o[0]), address(i, o[1]), address(i, o[2]),
                          address(i, o[3]), address(i, trial % 2 ? o[1] : o[4]), 0.1f, 0.5f);
  }
  compare();
}

static void check_largest(void) {
  const size_t n = random_size(0, 200);
  begin("largest, square_sum");
  const operand x = some_rows(F, 1, n, 1.0f), d = some_rows(P, 1, n, 1.0f);
  uint32_t found[2][3];
  for BOTH(i) {
    found[i][0] = kernels[i]->largest_float(n, address(i, x));
    found[i][1] = kernels[i]->largest_bf16(n, address(i, x));
    found[i][2] = fptt_bits(kernels[i]->square_sum(n, address(i, d)));
  }
  for (int i = 0; i < 3; i++) compare_words(found[0][i], found[1][i]);
  compare();
}

/* -- cells ----------------------------------------------------------------------------------- */

static void check_cells(void) {
  const size_t n = random_size(1, 9), hidden = random_size(1, 70);
  const float wide = trial % 2 ? 3.0f : 20.0f;
  operand o[9];
#define CELL(name, large, ...)                                                                    \
  begin(#name);                                                                                   \
  specials = trial % 3 == 0;                                                                      \
  for (int i = 0; i < 9; i++) o[i] = some_rows(A, n, i < 2 ? 4 * hidden : hidden, large);         \
  if (trial % 2) o[1] = o[0], o[6] = o[5]; /* outputs where inputs are */                         \
  specials = 0;                                                                                   \
  for BOTH(i) kernels[i]->name(n, hidden, __VA_ARGS__);                                           \
  compare();
#define ROWS(which) rows(i, o[which])
  CELL(lstm_forward, wide, ROWS(0), ROWS(5), ROWS(1), ROWS(6), ROWS(2))
  CELL(lstm_backward, 1.0f, ROWS(0), ROWS(2), ROWS(3), ROWS(4), ROWS(5), ROWS(1), ROWS(6))
  CELL(gru_forward, wide, ROWS(0), ROWS(5), ROWS(1), ROWS(6))
  CELL(gru_backward, 1.0f, ROWS(0), ROWS(2), ROWS(5), ROWS(1), ROWS(6))
  CELL(rnn_forward, wide, ROWS(5), ROWS(6))
  CELL(rnn_backward, 1.0f, ROWS(2), ROWS(5), ROWS(6))
}

/* The stack of the kernel that takes most. */
static void print_stack(void) {
  begin("stack");
  const random_spans s = make_spans(9, 300, 0, 5);
  const learned_place l = make_learned(9, 300);
  const fptt_learned at = learned(1, &l);
  const fptt_update_rule rule = random_rule();
  const fptt_step step = random_step();
  fptt_span spans[4];
  place_spans(1, &s, spans);
  memcpy(memory[1], memory[0], used);
  bare_paint_stack();
  kernels[1]->gradient_update(spans, s.count, 0, 9, s.p_stride, s.q_stride, &at, &rule, step, NULL,
                              0);
  bare_text("stack ");
  bare_number(bare_stack_used());
  bare_text("\n");
}

int main(void) {
  used = MEMORY; /* to be cleared */
  bare_text("vlen ");
  bare_number(8 * bare_vector_bytes());
  bare_text("\n");
  for (trial = 0; trial < TRIALS; trial++) {
    check_product();
    check_product_transposed();
    check_gradient();
    check_gradient_update();
    check_update();
    check_direction();
    check_largest();
    check_cells();
  }
  print_stack();
  bare_text("instructions ");
  bare_number(bare_instructions());
  bare_text("\n");
  bare_text("passed ");
  bare_number(TRIALS);
  bare_text("\n");
  return 0;
}
