/* Matrix products for machines without vectors, in the place of products.c.
 *
 * The same kernels, with few instructions and little code. A tile of sums stays in registers while
 * the third dimension runs; each number that is loaded meets a row or a column of the tile.
 *
 *   product              y[n, j]  = sum_k x[n, k] w[k, j]       tile: rows n x columns j
 *   product_transposed   y[n, j]  = sum_k x[n, k] w[j, k]       tile: rows n x rows j
 *   gradient             g[k, j]  = sum_n p[n, k] q[n, j]       tile: rows k x columns j
 *
 * Every sum runs in the order of its index, whatever the tile: a row's result does not depend on
 * how many rows there are.
 *
 * gcc: -O2 -fno-schedule-insns -fno-ivopts. Its scheduler moves loads up before registers are given
 * out and its loop optimizer keeps a pointer for every number, and then they spill. What a machine
 * has no room for in registers is a matter of these two flags, not of the result.
 */
#include "target.h"

/* Inner loops in assembly, where there are some and all numbers are float. They need the registers
 * that a compiler takes for itself when it does not optimise. */
#ifndef FPTT_ASSEMBLY
#define FPTT_ASSEMBLY 1
#endif
#if FPTT_ASSEMBLY && defined(__ARM_ARCH_7EM__) && defined(__ARM_FP) && defined(__OPTIMIZE__) &&   \
    !FPTT_ACTIVATION_BF16 && !FPTT_PARAMETER_BF16
#define FPTT_CORTEX_M4 1
#include "products_cortex_m4.h"
#else
#define FPTT_CORTEX_M4 0
#endif

/* All loops over a tile are unrolled, so that its sums are registers. */
#if defined(__clang__)
#define FPTT_UNROLL_TILE _Pragma("unroll")
#else
#define FPTT_UNROLL_TILE _Pragma("GCC unroll 32")
#endif

/* Here the compiler forgets how a pointer or an index came about; else it keeps one for every line,
 * and computes early what then waits on the stack. */
#define FPTT_FORGET(pointer) __asm__("" : "+r"(pointer))

/* gcc keeps a number that was widened or is to be narrowed in an integer register, and moves it for
 * every multiply-add; here it becomes a float. */
#if defined(__riscv)
#define FPTT_AS_FLOAT(number) __asm__("" : "+f"(number))
#elif defined(__arm__)
#define FPTT_AS_FLOAT(number) __asm__("" : "+t"(number))
#else
#define FPTT_AS_FLOAT(number) (void)(number)
#endif

FPTT_INLINE float get_activation(fptt_activation value) {
  float number = FPTT_GET_A(value);
#if FPTT_ACTIVATION_BF16
  FPTT_AS_FLOAT(number);
#endif
  return number;
}

FPTT_INLINE float get_parameter(fptt_parameter value) {
  float number = FPTT_GET_P(value);
#if FPTT_PARAMETER_BF16
  FPTT_AS_FLOAT(number);
#endif
  return number;
}

/* to[c] = sums[c] + before[c]; without `before` the sums alone. */
#if FPTT_ACTIVATION_BF16
static __attribute__((noinline)) void narrow(fptt_activation *to, const fptt_activation *before,
                                             const float *sums, size_t count) {
  for (size_t c = 0; c < count; c++) {
    to[c] = FPTT_PUT_A(before ? sums[c] + FPTT_GET_A(before[c]) : sums[c]);
  }
}

FPTT_INLINE void put(fptt_activation *to, const fptt_activation *before, const float *sums,
                     const size_t count) {
  float memory[24]; /* so that the sums themselves need none */
  FPTT_UNROLL_TILE for (size_t c = 0; c < count; c++) memory[c] = sums[c];
  narrow(to, before, memory, count);
}
#else
FPTT_INLINE void put(float *to, const float *before, float *sums, const size_t count) {
  if (before) {
    FPTT_UNROLL_TILE for (size_t c = 0; c < count; c++) sums[c] += before[c];
  }
  FPTT_UNROLL_TILE for (size_t c = 0; c < count; c++) to[c] = sums[c];
}
#endif

/* The tiles, for 32 floating-point registers: up to 24 sums, numbers of one side, one of the other.
 * Blocks of ROWS rows where there are as many, otherwise one row at a time; in either case wide
 * tiles first, for what is left narrow ones. */
enum {
  ROWS = 4,
  WIDE = FPTT_CORTEX_M4 ? 5 : 6, /* columns beside ROWS rows */
  /* columns beside one row: of a product, of product_transposed, and so many k at a time there */
  PRODUCT_LINE = FPTT_CORTEX_M4 ? 16 : 24,
  TRANSPOSED_LINE = FPTT_CORTEX_M4 ? 8 : 16,
  TRANSPOSED_DEEP = 8,
  /* turns unrolled beside ROWS rows: Arm moves a pointer as it loads */
#if defined(__arm__)
  DEEP = 1,
#else
  DEEP = 4,
#endif
  GRADIENT_LINE = 24,
  /* columns that gradient_update holds on the stack: long runs suit the update */
  HELD_COLUMNS = FPTT_CORTEX_M4 ? 80 : 84
};

/* -- product -------------------------------------------------------------------------------- */

typedef struct {
  const fptt_factors *factors[2];
  int count; /* of them */
  const fptt_parameter *bias;
  fptt_rows start, y;
  size_t cols;
} product_call;

/* sums[r, c] += x[r, k] w[k, c] for all k. Columns in groups that are loaded together, `deep` turns
 * of k unrolled. */
FPTT_INLINE void product_sums(const int rows, const int columns, const int group, const int deep,
                              float *sums, const fptt_factors *f, size_t row, size_t column) {
  const fptt_parameter *line = (const fptt_parameter *)f->w + column;
  const fptt_activation *in[ROWS], *end;
  const size_t w_stride = f->w_stride;
  size_t blocks = f->inner / (size_t)deep;
  FPTT_FORGET(row);
  in[0] = fptt_row(f->x, row);
  FPTT_UNROLL_TILE for (int r = 1; r < rows; r++) in[r] = in[r - 1] + f->x.stride;
#define FPTT_STEP(at)                                                                             \
  {                                                                                               \
    const float only = rows == 1 ? get_activation(in[0][at]) : 0;                                 \
    FPTT_UNROLL_TILE for (int low = 0; low < columns; low += group) {                             \
      float across[WIDE];                                                                         \
      FPTT_UNROLL_TILE for (int c = 0; c < group; c++) across[c] = get_parameter(line[low + c]);  \
      FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {                                           \
        float number = rows == 1 ? only : get_activation(in[r][at]);                              \
        FPTT_UNROLL_TILE for (int c = 0; c < group; c++) {                                        \
          sums[r * columns + low + c] += number * across[c];                                      \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
    line += w_stride;                                                                             \
  }
  for (end = in[0] + blocks * (size_t)deep; in[0] != end; in[0] += deep) {
    FPTT_UNROLL_TILE for (int u = 0; u < deep; u++) FPTT_STEP(u)
    FPTT_UNROLL_TILE for (int r = 1; r < rows; r++) in[r] += deep;
  }
  if (deep > 1) {
    for (end = in[0] + f->inner % (size_t)deep; in[0] != end; in[0]++) {
      FPTT_STEP(0)
      FPTT_UNROLL_TILE for (int r = 1; r < rows; r++) in[r]++;
    }
  }
#undef FPTT_STEP
}

/* y = sums + start */
FPTT_INLINE void product_finish(const int rows, const int columns, const product_call *call,
                                float *sums, size_t row, size_t column) {
  FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {
    fptt_activation *to = fptt_row(call->y, row + (size_t)r) + column;
    float *from = sums + r * columns;
    const fptt_activation *before = NULL;
    if (call->start.data) before = fptt_row(call->start, row + (size_t)r) + column;
    put(to, before, from, (size_t)columns);
  }
}

FPTT_INLINE void product_tile(const int rows, const int columns, const int group, const int deep,
                              const product_call *call, size_t row, size_t column) {
  float sums[24];
#if FPTT_CORTEX_M4
  if (columns == (rows == 1 ? PRODUCT_LINE : WIDE)) {
    const int direct = !call->start.data;
    fptt_places places = {fptt_zeros, 0, sums, 4 * (size_t)columns};
    if (call->bias) places.from = call->bias + column;
    if (direct) {
      places.to = fptt_row(call->y, row) + column;
      places.to_by = 4 * call->y.stride;
    }
    for (int which = 0; which < call->count; which++) {
      const fptt_factors *f = call->factors[which];
      const float *x = fptt_row(f->x, row), *w = (const float *)f->w + column;
      if (rows == 1) {
        product_1x16(places.from, places.to, f->inner, x, w, f->w_stride);
      } else {
        product_4x5(&places, f->inner, x, f->x.stride, w, f->w_stride);
      }
      places.from = places.to;
      places.from_by = places.to_by;
    }
    if (!direct) product_finish(rows, columns, call, sums, row, column);
    return;
  }
#endif
  FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) {
    float first = call->bias ? get_parameter(call->bias[column + (size_t)c]) : 0;
    FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) sums[r * columns + c] = first;
  }
  for (int which = 0; which < call->count; which++) {
    product_sums(rows, columns, group, deep, sums, call->factors[which], row, column);
  }
  product_finish(rows, columns, call, sums, row, column);
}

#define FPTT_TILES(tile, rows, columns, ...)                                                      \
  for (; column + columns <= cols; column += columns) {                                           \
    tile(rows, columns, __VA_ARGS__, call, row, column);                                          \
  }

static void product_line(const product_call *call, size_t row, size_t column) {
  const size_t cols = call->cols;
  FPTT_TILES(product_tile, 1, PRODUCT_LINE, 4, 1)
  FPTT_TILES(product_tile, 1, 4, 4, 1)
  FPTT_TILES(product_tile, 1, 1, 1, 1)
}

/* Not inlined: with fewer values alive all pointers of its loops have registers. */
static __attribute__((noinline)) size_t product_block(const product_call *call, size_t row) {
  const size_t cols = call->cols;
  size_t column = 0;
  FPTT_TILES(product_tile, ROWS, WIDE, WIDE, DEEP)
  FPTT_TILES(product_tile, ROWS, 2, 2, 1)
  return column;
}

void FPTT_KERNEL(product)(size_t n, size_t cols, fptt_factors one, fptt_factors two,
                          const void *bias, fptt_rows start, fptt_rows y) {
  const product_call call = {{&one, &two}, two.inner ? 2 : 1, bias, start, y, cols};
  for (size_t row = 0, left = 0, column = 0; row < n; row++, left--) {
    if (!left) {
      left = n - row < ROWS ? 1 : ROWS;
      column = left == 1 ? 0 : product_block(&call, row);
    }
    product_line(&call, row, column);
  }
}

/* -- product_transposed ---------------------------------------------------------------------- */

typedef struct {
  size_t inner, w_stride;
  const fptt_parameter *w, *bias;
  fptt_rows x, start, y;
  size_t cols;
} transposed_call;

/* sums[c] += x[k] w[c, k] for all k, `deep` of them at a time. */
FPTT_INLINE void transposed_line_sums(const int columns, const int group, const int deep,
                                      float *sums, const fptt_activation *in,
                                      const fptt_parameter *lines, size_t inner,
                                      size_t w_stride) {
  const fptt_activation *end = in + inner / (size_t)deep * (size_t)deep;
#define FPTT_STEP(deep)                                                                           \
  {                                                                                               \
    const fptt_parameter *line = lines;                                                           \
    float numbers[TRANSPOSED_DEEP];                                                               \
    FPTT_UNROLL_TILE for (int u = 0; u < deep; u++) numbers[u] = get_activation(in[u]);           \
    FPTT_UNROLL_TILE for (int low = 0; low < columns; low += group) {                             \
      const fptt_parameter *near[4];                                                              \
      FPTT_UNROLL_TILE for (int c = 0; c < group; c++) {                                          \
        near[c] = line;                                                                           \
        line += w_stride;                                                                         \
        FPTT_FORGET(line);                                                                        \
      }                                                                                           \
      FPTT_UNROLL_TILE for (int u = 0; u < deep; u++) {                                           \
        FPTT_UNROLL_TILE for (int c = 0; c < group; c++) {                                        \
          sums[low + c] += numbers[u] * get_parameter(near[c][u]);                                \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
    in += deep;                                                                                   \
    lines += deep;                                                                                \
  }
  while (in != end) FPTT_STEP(deep)
  for (end += inner % (size_t)deep; in != end;) FPTT_STEP(1)
#undef FPTT_STEP
}

/* sums[r, c] += x[r, k] w[c, k] for all k, `deep` turns unrolled. */
FPTT_INLINE void transposed_sums(const int rows, const int columns, const int deep, float *sums,
                                 const transposed_call *call, size_t row, size_t column) {
  const fptt_parameter *line[WIDE];
  const fptt_activation *in[ROWS], *end;
  FPTT_FORGET(row);
  in[0] = fptt_row(call->x, row);
  line[0] = call->w + column * call->w_stride;
  FPTT_UNROLL_TILE for (int r = 1; r < rows; r++) in[r] = in[r - 1] + call->x.stride;
  FPTT_UNROLL_TILE for (int c = 1; c < columns; c++) line[c] = line[c - 1] + call->w_stride;
#define FPTT_STEP(at)                                                                             \
  {                                                                                               \
    float across[WIDE];                                                                           \
    FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) across[c] = get_parameter(line[c][at]);    \
    FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {                                             \
      float number = get_activation(in[r][at]);                                                   \
      FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) {                                        \
        sums[r * columns + c] += number * across[c];                                              \
      }                                                                                           \
    }                                                                                             \
  }
#define FPTT_NEXT(deep)                                                                           \
  FPTT_UNROLL_TILE for (int r = 1; r < rows; r++) in[r] += deep;                                  \
  FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) line[c] += deep;
  for (end = in[0] + call->inner / (size_t)deep * (size_t)deep; in[0] != end; in[0] += deep) {
    FPTT_UNROLL_TILE for (int u = 0; u < deep; u++) FPTT_STEP(u)
    FPTT_NEXT(deep)
  }
  if (deep > 1) {
    for (end = in[0] + call->inner % (size_t)deep; in[0] != end; in[0]++) {
      FPTT_STEP(0)
      FPTT_NEXT(1)
    }
  }
#undef FPTT_STEP
#undef FPTT_NEXT
}

/* y = sums + bias + start */
FPTT_INLINE void transposed_finish(const int rows, const int columns, const transposed_call *call,
                                   float *sums, size_t row, size_t column) {
  FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {
    fptt_activation *to = fptt_row(call->y, row + (size_t)r) + column;
    float *from = sums + r * columns;
    if (call->bias) {
      const fptt_parameter *bias = call->bias + column;
      FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) from[c] += get_parameter(bias[c]);
    }
    const fptt_activation *before = NULL;
    if (call->start.data) before = fptt_row(call->start, row + (size_t)r) + column;
    put(to, before, from, (size_t)columns);
  }
}

FPTT_INLINE void transposed_tile(const int rows, const int columns, const int deep,
                                 const transposed_call *call, size_t row, size_t column) {
  float sums[24];
#if FPTT_CORTEX_M4
  if (columns == (rows == 1 ? TRANSPOSED_LINE : WIDE)) {
    const int direct = !call->bias && !call->start.data;
    fptt_places places = {fptt_zeros, 0, sums, 4 * (size_t)columns};
    const float *x = fptt_row(call->x, row), *w = call->w + column * call->w_stride;
    if (direct) {
      places.to = fptt_row(call->y, row) + column;
      places.to_by = 4 * call->y.stride;
    }
    if (rows == 1) {
      transposed_1x8(places.from, places.to, call->inner, x, w, call->w_stride);
    } else {
      transposed_4x5(&places, call->inner, x, call->x.stride, w, call->w_stride);
    }
    if (!direct) transposed_finish(rows, columns, call, sums, row, column);
    return;
  }
#endif
  FPTT_UNROLL_TILE for (int i = 0; i < rows * columns; i++) sums[i] = 0;
  if (rows > 1) {
    transposed_sums(rows, columns, deep, sums, call, row, column);
  } else {
    transposed_line_sums(columns, columns < 4 ? columns : 4, deep, sums, fptt_row(call->x, row),
                         call->w + column * call->w_stride, call->inner, call->w_stride);
  }
  transposed_finish(rows, columns, call, sums, row, column);
}

static void transposed_line(const transposed_call *call, size_t row, size_t column) {
  const size_t cols = call->cols;
  FPTT_TILES(transposed_tile, 1, TRANSPOSED_LINE, TRANSPOSED_DEEP)
  FPTT_TILES(transposed_tile, 1, 4, 4)
  FPTT_TILES(transposed_tile, 1, 1, 1)
}

static size_t transposed_block(const transposed_call *call, size_t row) {
  const size_t cols = call->cols;
  size_t column = 0;
  FPTT_TILES(transposed_tile, ROWS, WIDE, DEEP)
  FPTT_TILES(transposed_tile, ROWS, 2, 1)
  return column;
}

void FPTT_KERNEL(product_transposed)(size_t n, size_t inner, size_t cols, fptt_rows x,
                                     const void *w, size_t w_stride, const void *bias,
                                     fptt_rows start, fptt_rows y) {
  const transposed_call call = {inner, w_stride, w, bias, x, start, y, cols};
  for (size_t row = 0, left = 0, column = 0; row < n; row++, left--) {
    if (!left) {
      left = n - row < ROWS ? 1 : ROWS;
      column = left == 1 ? 0 : transposed_block(&call, row);
    }
    transposed_line(&call, row, column);
  }
}

#undef FPTT_TILES

/* -- gradient -------------------------------------------------------------------------------- */

/* 1, for products without p */
#if FPTT_ACTIVATION_BF16
#define FPTT_ONE 0x3F80
#else
#define FPTT_ONE 1
#endif

typedef struct {
  const fptt_span *spans;
  size_t from, to, p_stride, q_stride;
} gradient_call;

/* tile[r, c] += p[i, r] q[i, c] over n >= 1 rows; `fresh`: nothing stands in the tile yet. */
FPTT_INLINE void gradient_tile(const int rows, const int columns, const int group, size_t n,
                               const fptt_activation *p, size_t p_stride,
                               const fptt_activation *q, size_t q_stride, float *tile,
                               size_t tile_stride, int fresh) {
  float sums[24];
#define FPTT_STEP(plus)                                                                           \
  {                                                                                               \
    const float only = rows == 1 ? get_activation(p[0]) : 0;                                      \
    FPTT_UNROLL_TILE for (int low = 0; low < columns; low += group) {                             \
      float across[WIDE];                                                                         \
      FPTT_UNROLL_TILE for (int c = 0; c < group; c++) across[c] = get_activation(q[low + c]);    \
      FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {                                           \
        float number = rows == 1 ? only : get_activation(p[r]);                                   \
        FPTT_UNROLL_TILE for (int c = 0; c < group; c++) {                                        \
          sums[r * columns + low + c] plus number * across[c];                                    \
        }                                                                                         \
      }                                                                                           \
    }                                                                                             \
    p += p_stride;                                                                                \
    q += q_stride;                                                                                \
  }
  if (fresh) {
    FPTT_STEP(=)
    n--;
  } else {
    const float *from = tile;
    FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {
      FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) sums[r * columns + c] = from[c];
      from += tile_stride;
      FPTT_FORGET(from);
    }
  }
  for (; n; n--) FPTT_STEP(+=)
#undef FPTT_STEP
  FPTT_UNROLL_TILE for (int r = 0; r < rows; r++) {
    FPTT_UNROLL_TILE for (int c = 0; c < columns; c++) tile[c] = sums[r * columns + c];
    tile += tile_stride;
    FPTT_FORGET(tile);
  }
}

/* Lines [line, line + rows) x columns [column, column + width) of the product, over the rows
 * [from, to) of all spans, added to what stands in `tile` unless that is the beginning. `rows` is 1
 * or ROWS, tile_stride at least width. */
static void gradient_block(size_t rows, size_t width, const gradient_call *call, size_t line,
                           size_t column, float *tile, size_t tile_stride) {
  static const fptt_activation ones[ROWS] = {FPTT_ONE, FPTT_ONE, FPTT_ONE, FPTT_ONE};
  size_t skip = call->from, left = call->to - skip, q_stride = call->q_stride;
  int fresh = skip == 0;
  for (size_t r = 0; !left && r < rows; r++) {
    memset(tile + r * tile_stride, 0, width * sizeof *tile);
  }
  for (const fptt_span *span = call->spans; left; span++) {
    if (skip >= span->rows) {
      skip -= span->rows;
      continue;
    }
    const fptt_activation *p = ones, *q = (const fptt_activation *)span->q;
    size_t n = span->rows - skip, p_stride = 0, done = 0;
    if (n > left) n = left;
    left -= n;
    q += skip * q_stride + column;
    if (span->p) {
      p_stride = call->p_stride;
      p = (const fptt_activation *)span->p + skip * p_stride + line;
    }
    skip = 0;
#define FPTT_TILES(rows, columns, group)                                                          \
  for (; done + columns <= width; done += columns) {                                              \
    gradient_tile(rows, columns, group, n, p, p_stride, q + done, q_stride, tile + done,          \
                  tile_stride, fresh);                                                            \
  }
    if (rows == ROWS) {
#if FPTT_CORTEX_M4
      gradient_4x5(width / 5, n, p, p_stride, q, q_stride, tile, tile_stride, fresh);
      done = width / 5 * 5;
#else
      FPTT_TILES(ROWS, WIDE, WIDE)
#endif
      FPTT_TILES(ROWS, 1, 1)
    } else {
      FPTT_TILES(1, GRADIENT_LINE, 4)
      FPTT_TILES(1, 4, 4)
      FPTT_TILES(1, 1, 1)
    }
#undef FPTT_TILES
    fresh = 0;
  }
}

/* The next block of lines. Without p there is but one. */
static size_t block(size_t left) { return left < ROWS ? 1 : ROWS; }

static size_t rows_of(const fptt_span *spans, size_t count) {
  size_t rows = 0;
  for (size_t s = 0; s < count; s++) rows += spans[s].rows;
  return rows;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

void FPTT_KERNEL(gradient)(const fptt_span *spans, size_t count, size_t first, size_t last,
                           size_t b, size_t p_stride, size_t q_stride, const void *start, void *g,
                           size_t g_stride) {
  const gradient_call call = {spans, 0, rows_of(spans, count), p_stride, q_stride};
  const fptt_parameter *before = start;
  fptt_parameter *out = g;
  float tile[ROWS * HELD_COLUMNS];
  for (size_t column = 0; column < b; column += HELD_COLUMNS) {
    size_t width = least(b - column, HELD_COLUMNS);
    for (size_t line = first, rows; line < last; line += rows) {
      rows = block(last - line);
      gradient_block(rows, width, &call, line, column, tile, HELD_COLUMNS);
      for (size_t r = 0; r < rows; r++) {
        size_t at = (line + r) * g_stride + column;
        for (size_t j = 0; j < width; j++) {
          float sum = tile[r * HELD_COLUMNS + j];
          if (before) sum += FPTT_GET_P(before[at + j]);
          out[at + j] = FPTT_PUT_P(sum);
        }
      }
    }
  }
}

/* As in products.c: a gradient that is applied as soon as a part of it is finished. With `tile`
 * (lines x FPTT_TILE_COLUMNS floats) rows are taken in batches; `backwards` goes through the lines
 * from the last to the first, with the same result. */
uint32_t FPTT_KERNEL(gradient_update)(const fptt_span *spans, size_t count, size_t first,
                                      size_t last, size_t p_stride, size_t q_stride,
                                      const fptt_learned *at, const fptt_update_rule *rule,
                                      fptt_step step, float *tile, int backwards) {
  const size_t total = rows_of(spans, count), batch = tile ? FPTT_TILE_ROWS : total;
  const size_t columns = tile ? FPTT_TILE_COLUMNS : HELD_COLUMNS;
  gradient_call call = {spans, 0, 0, p_stride, q_stride};
  float own[ROWS * HELD_COLUMNS];
  uint32_t largest = 0;
  for (size_t column = 0; column < at->length; column += columns) {
    size_t width = least(at->length - column, columns);
    for (call.from = 0;; call.from = call.to) {
      call.to = least(call.from + batch, total);
      for (size_t done = 0, rows; done < last - first; done += rows) {
        rows = block(last - first - done);
        size_t line = backwards ? last - done - rows : first + done;
        float *sums = tile ? tile + line * columns : own;
        gradient_block(rows, width, &call, line, column, sums, columns);
        for (size_t r = 0; call.to == total && r < rows; r++) {
          uint32_t bits = FPTT_KERNEL(apply)(width, sums + r * columns, at,
                                             (line + r) * at->stride + column, rule, step);
          largest = bits > largest ? bits : largest;
        }
      }
      if (call.to == total) break;
    }
  }
  return largest;
}
