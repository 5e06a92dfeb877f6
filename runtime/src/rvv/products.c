/* Matrix products with RISC-V vectors; see ../products.c for what they compute.
 *
 * A tile of sums stays in registers while the third dimension runs. There is room for 8 groups: 6
 * of sums and a pair from memory, or 4 and two pairs. For each pair there are one load, one
 * addition for its address and 2 to 6 multiply-adds.
 *
 *   product              up to 3 rows x 1 pair of columns; 1 row: x 2 pairs
 *   product_transposed   1 line x up to 4 rows, or 1 row x 4 lines; along the third dimension
 *   gradient             up to 3 lines x 1 pair of columns
 *
 * Where no whole pair of columns is left, tiles are a group wide, and the last one is shorter.
 * Every sum of `product` and `gradient` runs in the order of its index with one rounding a term, so
 * they have the same bits as ../products.c compiled with a fused multiply-add. A sum of
 * `product_transposed` runs lane by lane, whatever the tile: its bits depend on VLEN and on the
 * order in which the processor adds up lanes (vfredusum), and on nothing else.
 */
#include "rvv.h"

#define FPTT_MOST_ROWS 3
#define FPTT_MOST_DOTS 4

/* before a loop that is unrolled by hand already */
#define FPTT_AS_IT_IS _Pragma("clang loop unroll(disable)")

/* The next block of rows: rather two of equal size than a full one and a poor rest. */
FPTT_INLINE size_t fptt_block(size_t left, size_t most) {
  return left <= most ? left : left < 2 * most ? (left + 1) / 2 : most;
}

FPTT_INLINE size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* sum + x v */
FPTT_INLINE fptt_group plus_scaled(fptt_group sum, float x, fptt_group v, size_t vl) {
  return __riscv_vfmacc_vf_f32m4(sum, x, v, vl);
}

/* -- product -------------------------------------------------------------------------------- */

/* Scalar operands are read at constant offsets, and their pointers go on once in eight turns. */
#define FPTT_EIGHT_TURNS                                                                          \
  { FPTT_TURN(0) FPTT_TURN(1) FPTT_TURN(2) FPTT_TURN(3)                                           \
    FPTT_TURN(4) FPTT_TURN(5) FPTT_TURN(6) FPTT_TURN(7) }

/* Bias, or zero, `column` on. */
FPTT_INLINE fptt_group first_of(const fptt_parameter *bias, size_t column, size_t vl) {
  return bias ? FPTT_GROUP_P(bias + column, vl) : fptt_zero();
}

FPTT_INLINE void finish(fptt_rows y, fptt_rows start, size_t row, size_t column, fptt_group sum,
                        size_t vl) {
  if (start.data) {
    fptt_group before = FPTT_GROUP_A(fptt_row(start, row) + column, vl);
    sum = __riscv_vfadd_vv_f32m4(sum, before, vl);
  }
  FPTT_STORE_A(fptt_row(y, row) + column, sum, vl);
}

/* `rows` rows x a group (of vl columns) or a pair (vl is then that of a whole group) */
FPTT_INLINE void product_tile(const size_t rows, const int paired, size_t vl, fptt_factors one,
                              fptt_factors two, size_t row, const fptt_parameter *bias,
                              fptt_rows start, fptt_rows y, size_t column) {
  fptt_group low0 = first_of(bias, column, vl), low1 = low0, low2 = low0;
  fptt_group high0 = low0, high1, high2;
  if (paired) high0 = first_of(bias, column + vl, vl);
  high1 = high0, high2 = high0;
  for (int which = 0; which < 2; which++) {
    const fptt_factors f = which ? two : one;
    if (f.inner == 0) continue; /* then it need not have rows */
    const fptt_activation *in0 = fptt_row(f.x, row);
    const fptt_activation *in1 = rows > 1 ? in0 + f.x.stride : in0;
    const fptt_activation *in2 = rows > 2 ? in1 + f.x.stride : in0;
    const fptt_parameter *line = (const fptt_parameter *)f.w + column;
    size_t k = f.inner;
    if (!paired) {
      FPTT_AS_IT_IS for (; k; k--, line += f.w_stride) {
        fptt_group across = FPTT_GROUP_P(line, vl);
        low0 = plus_scaled(low0, FPTT_GET_A(*in0++), across, vl);
        if (rows > 1) low1 = plus_scaled(low1, FPTT_GET_A(*in1++), across, vl);
        if (rows > 2) low2 = plus_scaled(low2, FPTT_GET_A(*in2++), across, vl);
      }
      continue;
    }
#define FPTT_TURN(i)                                                                \
  {                                                                                 \
    FPTT_PAIR_P pair = FPTT_LOAD_P(line);                                           \
    fptt_group across = FPTT_OF_P(pair, 0);                                         \
    low0 = plus_scaled(low0, FPTT_GET_A(in0[i]), across, vl);                       \
    if (rows > 1) low1 = plus_scaled(low1, FPTT_GET_A(in1[i]), across, vl);         \
    if (rows > 2) low2 = plus_scaled(low2, FPTT_GET_A(in2[i]), across, vl);         \
    across = FPTT_OF_P(pair, 1);                                                    \
    high0 = plus_scaled(high0, FPTT_GET_A(in0[i]), across, vl);                     \
    if (rows > 1) high1 = plus_scaled(high1, FPTT_GET_A(in1[i]), across, vl);       \
    if (rows > 2) high2 = plus_scaled(high2, FPTT_GET_A(in2[i]), across, vl);       \
    line += f.w_stride;                                                             \
  }
    FPTT_AS_IT_IS for (; k >= 8; k -= 8, in0 += 8, in1 += 8, in2 += 8) FPTT_EIGHT_TURNS
    FPTT_AS_IT_IS for (; k; k--, in0++, in1++, in2++) FPTT_TURN(0)
#undef FPTT_TURN
  }
  finish(y, start, row, column, low0, vl);
  if (paired) finish(y, start, row, column + vl, high0, vl);
  if (rows > 1) finish(y, start, row + 1, column, low1, vl);
  if (rows > 1 && paired) finish(y, start, row + 1, column + vl, high1, vl);
  if (rows > 2) finish(y, start, row + 2, column, low2, vl);
  if (rows > 2 && paired) finish(y, start, row + 2, column + vl, high2, vl);
}

/* 1 row x 2 pairs */
FPTT_INLINE void product_line(fptt_factors one, fptt_factors two, const fptt_parameter *bias,
                              fptt_rows start, fptt_rows y, size_t column) {
  const size_t vl = fptt_whole();
  fptt_group sum0 = first_of(bias, column, vl), sum1 = first_of(bias, column + vl, vl);
  fptt_group sum2 = first_of(bias, column + 2 * vl, vl);
  fptt_group sum3 = first_of(bias, column + 3 * vl, vl);
  for (int which = 0; which < 2; which++) {
    const fptt_factors f = which ? two : one;
    if (f.inner == 0) continue;
    const fptt_activation *in = f.x.data;
    const fptt_parameter *line = (const fptt_parameter *)f.w + column;
    size_t k = f.inner;
#define FPTT_TURN(i)                                                               \
  {                                                                                \
    FPTT_PAIR_P left = FPTT_LOAD_P(line), right = FPTT_LOAD_P(line + 2 * vl);      \
    float number = FPTT_GET_A(in[i]);                                              \
    sum0 = plus_scaled(sum0, number, FPTT_OF_P(left, 0), vl);                      \
    sum1 = plus_scaled(sum1, number, FPTT_OF_P(left, 1), vl);                      \
    sum2 = plus_scaled(sum2, number, FPTT_OF_P(right, 0), vl);                     \
    sum3 = plus_scaled(sum3, number, FPTT_OF_P(right, 1), vl);                     \
    line += f.w_stride;                                                            \
  }
    FPTT_AS_IT_IS for (; k >= 8; k -= 8, in += 8) FPTT_EIGHT_TURNS
    FPTT_AS_IT_IS for (; k; k--, in++) FPTT_TURN(0)
#undef FPTT_TURN
  }
  finish(y, start, 0, column, sum0, vl);
  finish(y, start, 0, column + vl, sum1, vl);
  finish(y, start, 0, column + 2 * vl, sum2, vl);
  finish(y, start, 0, column + 3 * vl, sum3, vl);
}

/* The columns of a tile meet all rows before the next tile begins: then weights come once from a
 * memory that is slower than the nearest cache. */
void FPTT_KERNEL(product)(size_t n, size_t cols, fptt_factors one, fptt_factors two,
                          const void *bias, fptt_rows start, fptt_rows y) {
  const size_t whole = fptt_whole();
  size_t column = 0, vl = whole;
  if (n == 1) {
    for (; column + 4 * whole <= cols; column += 4 * whole) {
      product_line(one, two, bias, start, y, column);
    }
  }
#define FPTT_TILES(paired)                                                                         \
  for (size_t row = 0, rows; row < n; row += rows) {                                               \
    rows = fptt_block(n - row, FPTT_MOST_ROWS);                                                    \
    switch (rows) {                                                                                \
      case 1: product_tile(1, paired, vl, one, two, row, bias, start, y, column); break;           \
      case 2: product_tile(2, paired, vl, one, two, row, bias, start, y, column); break;           \
      default: product_tile(3, paired, vl, one, two, row, bias, start, y, column); break;          \
    }                                                                                              \
  }
  for (; column + 2 * whole <= cols; column += 2 * whole) { FPTT_TILES(1) }
  for (; column < cols; column += vl) {
    vl = __riscv_vsetvl_e32m4(cols - column);
    FPTT_TILES(0)
  }
#undef FPTT_TILES
}

/* -- product_transposed ---------------------------------------------------------------------- */

/* sum + a b in the first vl lanes; the others keep their sums */
FPTT_INLINE fptt_group plus_product(fptt_group sum, fptt_group a, fptt_group b, size_t vl) {
  return __riscv_vfmacc_vv_f32m4_tu(sum, a, b, vl);
}

FPTT_INLINE float total_of(fptt_group sum, vfloat32m1_t zero) {
  return __riscv_vfmv_f_s_f32m1_f32(__riscv_vfredusum_vs_f32m4_f32m1(sum, zero, fptt_whole()));
}

/* Where dot products end. */
typedef struct {
  fptt_rows y, start;
  const fptt_parameter *bias;
  size_t row, column;
} dot_place;

FPTT_INLINE void finish_dots(const size_t count, const dot_place *at, const size_t down,
                             const size_t right, fptt_group sum0, fptt_group sum1, fptt_group sum2,
                             fptt_group sum3) {
  const vfloat32m1_t zero = __riscv_vget_v_f32m4_f32m1(fptt_zero(), 0);
  float sums[FPTT_MOST_DOTS] = {total_of(sum0, zero)};
  fptt_activation *to = fptt_row(at->y, at->row) + at->column;
  if (count > 1) sums[1] = total_of(sum1, zero);
  if (count > 2) sums[2] = total_of(sum2, zero);
  if (count > 3) sums[3] = total_of(sum3, zero);
  if (at->bias) {
    for (size_t i = 0; i < count; i++) sums[i] += FPTT_GET_P(at->bias[at->column + i * right]);
  }
  if (at->start.data) {
    const fptt_activation *before = fptt_row(at->start, at->row) + at->column;
    const size_t stride = at->start.stride;
    for (size_t i = 0; i < count; i++) sums[i] += FPTT_GET_A(before[i * right + i * down * stride]);
  }
  for (size_t i = 0; i < count; i++) {
    to[i * right + i * down * at->y.stride] = FPTT_PUT_A(sums[i]);
  }
}

/* `pointer` moved on by bytes: a step in elements would be multiplied anew in every turn */
#define FPTT_MOVED(type, pointer, bytes) \
  ((const type *)(const void *)((const char *)(pointer) + (bytes)))

/* shared . others[i] for `count` others `stride` apart: a row of activations (A) and lines of
 * parameters (P), whose results stand side by side, or a line and rows, with results one below the
 * other (`down`). */
#define FPTT_DOTS(name, A_, P_, shared_type, other_type, down)                                     \
  FPTT_INLINE void name(const size_t count, size_t inner, const shared_type *shared,               \
                        const other_type *others, size_t stride, const dot_place *at) {            \
    const size_t whole = fptt_whole();                                                             \
    const other_type *other0 = others, *other1 = other0 + (count > 1 ? stride : 0);                \
    const other_type *other2 = other1 + (count > 2 ? stride : 0);                                  \
    const other_type *other3 = other2 + (count > 3 ? stride : 0);                                  \
    fptt_group sum0 = fptt_zero(), sum1 = sum0, sum2 = sum0, sum3 = sum0;                          \
    size_t left = inner;                                                                           \
    FPTT_AS_IT_IS for (; left >= 2 * whole; left -= 2 * whole) {                                   \
      const FPTT_PAIR_##A_ pair = FPTT_LOAD_##A_(shared);                                          \
      const fptt_group low = FPTT_OF_##A_(pair, 0), high = FPTT_OF_##A_(pair, 1);                  \
      shared = FPTT_MOVED(shared_type, shared, 2 * whole * sizeof *shared);                        \
      FPTT_PLUS_PAIR(0, P_, other_type)                                                            \
      if (count > 1) FPTT_PLUS_PAIR(1, P_, other_type)                                             \
      if (count > 2) FPTT_PLUS_PAIR(2, P_, other_type)                                             \
      if (count > 3) FPTT_PLUS_PAIR(3, P_, other_type)                                             \
    }                                                                                              \
    FPTT_AS_IT_IS for (size_t vl; left; left -= vl) {                                              \
      vl = __riscv_vsetvl_e32m4(left);                                                             \
      const fptt_group low = FPTT_GROUP_##A_(shared, vl);                                          \
      shared += vl;                                                                                \
      FPTT_PLUS_GROUP(0, P_)                                                                       \
      if (count > 1) FPTT_PLUS_GROUP(1, P_)                                                        \
      if (count > 2) FPTT_PLUS_GROUP(2, P_)                                                        \
      if (count > 3) FPTT_PLUS_GROUP(3, P_)                                                        \
    }                                                                                              \
    finish_dots(count, at, down, !(down), sum0, sum1, sum2, sum3);                                 \
  }
#define FPTT_PLUS_PAIR(i, P_, type)                                         \
  {                                                                         \
    const FPTT_PAIR_##P_ other = FPTT_LOAD_##P_(other##i);                  \
    const fptt_group first = FPTT_OF_##P_(other, 0);                        \
    sum##i = __riscv_vfmacc_vv_f32m4(sum##i, low, first, whole);            \
    const fptt_group second = FPTT_OF_##P_(other, 1);                       \
    sum##i = __riscv_vfmacc_vv_f32m4(sum##i, high, second, whole);          \
    other##i = FPTT_MOVED(type, other##i, 2 * whole * sizeof *other##i);    \
  }
#define FPTT_PLUS_GROUP(i, P_)                                                        \
  {                                                                                   \
    sum##i = plus_product(sum##i, low, FPTT_GROUP_##P_(other##i, vl), vl);            \
    other##i += vl;                                                                   \
  }

FPTT_DOTS(dots_of_row, A, P, fptt_activation, fptt_parameter, 0)
FPTT_DOTS(dots_of_line, P, A, fptt_parameter, fptt_activation, 1)

void FPTT_KERNEL(product_transposed)(size_t n, size_t inner, size_t cols, fptt_rows x,
                                     const void *w, size_t w_stride, const void *bias,
                                     fptt_rows start, fptt_rows y) {
  const fptt_parameter *line = w;
  dot_place at = {y, start, bias, 0, 0};
  if (n == 1) {
    for (; at.column + FPTT_MOST_DOTS <= cols; at.column += FPTT_MOST_DOTS) {
      dots_of_row(FPTT_MOST_DOTS, inner, x.data, line, w_stride, &at);
      line += FPTT_MOST_DOTS * w_stride;
    }
  }
  const size_t done = at.column;
  for (size_t rows; at.row < n; at.row += rows) {
    const fptt_activation *in = fptt_row(x, at.row);
    const fptt_parameter *next = line;
    rows = fptt_block(n - at.row, FPTT_MOST_DOTS);
#define FPTT_LINES(rows)                                                           \
  for (at.column = done; at.column < cols; at.column++, next += w_stride) {        \
    dots_of_line(rows, inner, next, in, x.stride, &at);                            \
  }
    switch (rows) {
      case 1: FPTT_LINES(1) break;
      case 2: FPTT_LINES(2) break;
      case 3: FPTT_LINES(3) break;
      default: FPTT_LINES(4) break;
    }
#undef FPTT_LINES
  }
}

/* -- gradient -------------------------------------------------------------------------------- */

/* Columns whose sums wait on the stack, where all rows are taken at once: 3 kB. Long runs suit the
 * update. */
#define FPTT_LINE_COLUMNS 256

/* What one tile of a gradient sums up: rows [from, to) of all spans. */
typedef struct {
  const fptt_span *spans;
  size_t from, to, p_stride, q_stride;
} summed_rows;

static size_t rows_of(const fptt_span *spans, size_t count) {
  size_t rows = 0;
  for (size_t s = 0; s < count; s++) rows += spans[s].rows;
  return rows;
}

#if FPTT_ACTIVATION_BF16
#define FPTT_ONE 0x3F80
#else
#define FPTT_ONE 1.0f
#endif

/* `lines` lines from `line` on x a group or a pair from `column` on, into `sums` or, unless
 * `fresh`, added to what stands there; `apart` is the distance of its lines. Without p its numbers are 1. */
FPTT_INLINE void gradient_tile(const size_t lines, const int paired, size_t vl,
                               const summed_rows *rows, size_t line, size_t column, float *sums,
                               size_t apart, int fresh) {
  static const fptt_activation ones[FPTT_MOST_ROWS] = {FPTT_ONE, FPTT_ONE, FPTT_ONE};
  const fptt_span *span = rows->spans;
  const size_t from = rows->from, to = rows->to, q_stride = rows->q_stride;
  fptt_group low0 = fptt_zero(), low1 = low0, low2 = low0, high0 = low0, high1 = low0, high2 = low0;
  if (!fresh) {
    low0 = fptt_group_float(sums, vl);
    if (lines > 1) low1 = fptt_group_float(sums + apart, vl);
    if (lines > 2) low2 = fptt_group_float(sums + 2 * apart, vl);
    if (paired) high0 = fptt_group_float(sums + vl, vl);
    if (paired && lines > 1) high1 = fptt_group_float(sums + apart + vl, vl);
    if (paired && lines > 2) high2 = fptt_group_float(sums + 2 * apart + vl, vl);
  }
  for (size_t passed = 0; passed < to; passed += span->rows, span++) {
    const size_t low = from > passed ? from - passed : 0;
    const size_t high = least(to - passed, span->rows);
    if (low >= high) continue;
    const fptt_activation *p = ones, *q = (const fptt_activation *)span->q + column;
    const size_t p_stride = span->p ? rows->p_stride : 0;
    if (span->p) p = (const fptt_activation *)span->p + low * p_stride + line;
    q += low * q_stride;
    size_t i = high - low;
    if (!paired) {
      FPTT_AS_IT_IS for (; i; i--, p += p_stride, q += q_stride) {
        fptt_group across = FPTT_GROUP_A(q, vl);
        low0 = plus_scaled(low0, FPTT_GET_A(p[0]), across, vl);
        if (lines > 1) low1 = plus_scaled(low1, FPTT_GET_A(p[1]), across, vl);
        if (lines > 2) low2 = plus_scaled(low2, FPTT_GET_A(p[2]), across, vl);
      }
      continue;
    }
#define FPTT_TURN                                                                   \
  {                                                                                 \
    FPTT_PAIR_A pair = FPTT_LOAD_A(q);                                              \
    fptt_group across = FPTT_OF_A(pair, 0);                                         \
    low0 = plus_scaled(low0, FPTT_GET_A(p[0]), across, vl);                         \
    if (lines > 1) low1 = plus_scaled(low1, FPTT_GET_A(p[1]), across, vl);          \
    if (lines > 2) low2 = plus_scaled(low2, FPTT_GET_A(p[2]), across, vl);          \
    across = FPTT_OF_A(pair, 1);                                                    \
    high0 = plus_scaled(high0, FPTT_GET_A(p[0]), across, vl);                       \
    if (lines > 1) high1 = plus_scaled(high1, FPTT_GET_A(p[1]), across, vl);        \
    if (lines > 2) high2 = plus_scaled(high2, FPTT_GET_A(p[2]), across, vl);        \
    p += p_stride, q += q_stride;                                                   \
  }
    FPTT_AS_IT_IS for (; i >= 4; i -= 4) { FPTT_TURN FPTT_TURN FPTT_TURN FPTT_TURN }
    FPTT_AS_IT_IS for (; i; i--) FPTT_TURN
#undef FPTT_TURN
  }
  fptt_store_float(sums, low0, vl);
  if (paired) fptt_store_float(sums + vl, high0, vl);
  if (lines > 1) fptt_store_float(sums + apart, low1, vl);
  if (lines > 1 && paired) fptt_store_float(sums + apart + vl, high1, vl);
  if (lines > 2) fptt_store_float(sums + 2 * apart, low2, vl);
  if (lines > 2 && paired) fptt_store_float(sums + 2 * apart + vl, high2, vl);
}

/* `lines` lines from `line` on, columns [column, column + width) */
static void gradient_block(size_t lines, size_t width, const summed_rows *rows, size_t line,
                           size_t column, float *sums, size_t apart, int fresh) {
  const size_t whole = fptt_whole();
  size_t vl = whole;
#define FPTT_TILE(lines, paired) \
  gradient_tile(lines, paired, vl, rows, line, column, sums, apart, fresh)
#define FPTT_TILES(lines)                                                            \
  for (; width >= 2 * whole; width -= 2 * whole) {                                   \
    FPTT_TILE(lines, 1);                                                             \
    column += 2 * whole, sums += 2 * whole;                                          \
  }                                                                                  \
  for (; width; width -= vl) {                                                       \
    vl = __riscv_vsetvl_e32m4(width);                                                \
    FPTT_TILE(lines, 0);                                                             \
    column += vl, sums += vl;                                                        \
  }
  switch (lines) {
    case 1: FPTT_TILES(1) break;
    case 2: FPTT_TILES(2) break;
    default: FPTT_TILES(3) break;
  }
#undef FPTT_TILES
#undef FPTT_TILE
}

void FPTT_KERNEL(gradient)(const fptt_span *spans, size_t count, size_t first, size_t last,
                           size_t b, size_t p_stride, size_t q_stride, const void *start, void *g,
                           size_t g_stride) {
  const summed_rows all = {spans, 0, rows_of(spans, count), p_stride, q_stride};
  float sums[FPTT_MOST_ROWS * FPTT_LINE_COLUMNS];
  for (size_t column = 0; column < b; column += FPTT_LINE_COLUMNS) {
    const size_t width = least(b - column, FPTT_LINE_COLUMNS);
    for (size_t line = first, lines; line < last; line += lines) {
      lines = fptt_block(last - line, FPTT_MOST_ROWS);
      gradient_block(lines, width, &all, line, column, sums, FPTT_LINE_COLUMNS, 1);
      for (size_t r = 0; r < lines; r++) {
        const size_t at = (line + r) * g_stride + column;
        for (size_t j = 0, vl; j < width; j += vl) {
          vl = __riscv_vsetvl_e32m4(width - j);
          fptt_group sum = fptt_group_float(sums + r * FPTT_LINE_COLUMNS + j, vl);
          if (start) {
            fptt_group before = FPTT_GROUP_P((const fptt_parameter *)start + at + j, vl);
            sum = __riscv_vfadd_vv_f32m4(sum, before, vl);
          }
          FPTT_STORE_P((fptt_parameter *)g + at + j, sum, vl);
        }
      }
    }
  }
}

uint32_t FPTT_KERNEL(gradient_update)(const fptt_span *spans, size_t count, size_t first,
                                      size_t last, size_t p_stride, size_t q_stride,
                                      const fptt_learned *at, const fptt_update_rule *rule,
                                      fptt_step step, float *tile, int backwards) {
  const size_t total = rows_of(spans, count), batch = tile ? FPTT_TILE_ROWS : total;
  const size_t columns = tile ? FPTT_TILE_COLUMNS : FPTT_LINE_COLUMNS;
  float own[FPTT_MOST_ROWS * FPTT_LINE_COLUMNS];
  uint32_t largest = 0;
  for (size_t column = 0; column < at->length; column += columns) {
    const size_t width = least(at->length - column, columns);
    for (size_t from = 0, to;; from = to) {
      to = least(from + batch, total);
      const summed_rows some = {spans, from, to, p_stride, q_stride};
      for (size_t done = 0, lines; done < last - first; done += lines) {
        lines = fptt_block(last - first - done, FPTT_MOST_ROWS);
        const size_t line = backwards ? last - done - lines : first + done;
        float *sums = tile ? tile + line * columns : own;
        gradient_block(lines, width, &some, line, column, sums, columns, from == 0);
        for (size_t r = 0; to == total && r < lines; r++) {
          const uint32_t bits = FPTT_KERNEL(apply)(width, sums + r * columns, at,
                                                   (line + r) * at->stride + column, rule, step);
          largest = bits > largest ? bits : largest;
        }
      }
      if (to == total) break;
    }
  }
  return largest;
}
