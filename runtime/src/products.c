/* Matrix products: forward, backward, and the gradient of a matrix.
 *
 * All three stream vectors that are contiguous in memory, and all three are one pattern: a tile of
 * sums stays in registers while the third dimension runs.
 *
 *   product              y[n, j]  = sum_k x[n, k] w[k, j]       tile: rows n x vectors of j
 *                        (and a second such sum, for input and state of a recurrent layer)
 *   product_transposed   y[n, j]  = sum_k x[n, k] w[j, k]       tile: rows n x rows j; vectors of k
 *   gradient             g[k, j]  = sum_n p[n, k] q[n, j]       tile: rows k x vectors of j
 *
 * Every sum runs in the order of its index (in product_transposed: every lane's, then the lanes in
 * halves), whatever the tile, so that a row's result depends neither on how many rows there are nor
 * on how threads share them.
 */
#include "vector.h"

/* Tiles: up to 6 rows; the fewer the rows, the more vectors, so that enough sums are in flight to
 * hide the latency of a multiply-add. Sums, one row of operands and one number must fit the
 * registers. */
#if FPTT_REGISTERS >= 32
#define FPTT_WIDE(rows) ((rows) <= 2 ? 8 : 4)
#else
#define FPTT_WIDE(rows) ((rows) == 1 ? 8 : (rows) == 2 ? 4 : 2)
#endif
#define FPTT_MOST_ROWS 6

/* Calls `tile` with the number of rows as a constant. */
#define FPTT_WITH_ROWS(rows, tile)                                                                 \
  switch (rows) {                                                                                  \
    case 1: tile(1) break;                                                                         \
    case 2: tile(2) break;                                                                         \
    case 3: tile(3) break;                                                                         \
    case 4: tile(4) break;                                                                         \
    case 5: tile(5) break;                                                                         \
    default: tile(6) break;                                                                        \
  }

/* The next block of rows: blocks of equal size rather than a full one and a poor rest. */
FPTT_INLINE size_t fptt_block(size_t left) {
  size_t blocks = (left + FPTT_MOST_ROWS - 1) / FPTT_MOST_ROWS;
  return (left + blocks - 1) / blocks;
}

FPTT_INLINE void store_row(fptt_activation *to, fptt_vec sum, fptt_vec start, size_t count) {
  float lanes[FPTT_LANES];
#if !FPTT_ACTIVATION_BF16
  if (count == FPTT_LANES) {
    fptt_store(to, sum + start);
    return;
  }
#endif
  fptt_store(lanes, sum + start);
  for (size_t l = 0; l < count; l++) to[l] = FPTT_PUT_A(lanes[l]);
}

/* -- product -------------------------------------------------------------------------------- */

/* sums[r][v] += x[r, k] w[k, v] for all k, from `column` on; `some` lanes of the vector count
 * (FPTT_LANES: all, of every vector). */
FPTT_INLINE void product_rows(fptt_vec sums[6][8], const int rows, const int vectors, size_t some,
                              fptt_factors f, size_t row, size_t column) {
  const fptt_activation *in = fptt_row(f.x, row);
  const fptt_parameter *line = (const fptt_parameter *)f.w + column;
  for (size_t k = 0; k < f.inner; k++, line += f.w_stride) {
    fptt_vec across[8];
    if (some == FPTT_LANES) {
      FPTT_UNROLL for (int v = 0; v < vectors; v++) {
        across[v] = FPTT_LOAD_P(line + (size_t)v * FPTT_LANES);
      }
    } else {
      across[0] = FPTT_LOAD_SOME_P(line, some);
    }
    FPTT_UNROLL for (int r = 0; r < rows; r++) {
      float number = FPTT_GET_A(in[(size_t)r * f.x.stride + k]);
      FPTT_UNROLL for (int v = 0; v < vectors; v++) sums[r][v] += number * across[v];
    }
  }
}

FPTT_INLINE void product_tile(const int rows, const int vectors, size_t some, fptt_factors one,
                              fptt_factors two, size_t row, const fptt_parameter *bias,
                              fptt_rows start, fptt_rows y, size_t column) {
  fptt_vec sums[6][8];
  FPTT_UNROLL for (int v = 0; v < vectors; v++) {
    fptt_vec first = {0};
    if (bias && some == FPTT_LANES) first = FPTT_LOAD_P(bias + column + (size_t)v * FPTT_LANES);
    if (bias && some != FPTT_LANES) first = FPTT_LOAD_SOME_P(bias + column, some);
    FPTT_UNROLL for (int r = 0; r < rows; r++) sums[r][v] = first;
  }
  product_rows(sums, rows, vectors, some, one, row, column);
  if (two.inner) product_rows(sums, rows, vectors, some, two, row, column);
  FPTT_UNROLL for (int r = 0; r < rows; r++) {
    FPTT_UNROLL for (int v = 0; v < vectors; v++) {
      size_t at = column + (size_t)v * FPTT_LANES;
      fptt_vec before = {0};
      if (start.data && some == FPTT_LANES) {
        before = FPTT_LOAD_A(fptt_row(start, row + (size_t)r) + at);
      }
      if (start.data && some != FPTT_LANES) {
        before = FPTT_LOAD_SOME_A(fptt_row(start, row + (size_t)r) + at, some);
      }
      store_row(fptt_row(y, row + (size_t)r) + at, sums[r][v], before, some);
    }
  }
}

void FPTT_KERNEL(product)(size_t n, size_t cols, fptt_factors one, fptt_factors two,
                          const void *bias, fptt_rows start, fptt_rows y) {
  for (size_t row = 0, rows; row < n; row += rows) {
    size_t column = 0;
    rows = fptt_block(n - row);
#define FPTT_TILE(R)                                                                             \
  for (; column + FPTT_WIDE(R) * FPTT_LANES <= cols; column += FPTT_WIDE(R) * FPTT_LANES) {      \
    product_tile(R, FPTT_WIDE(R), FPTT_LANES, one, two, row, bias, start, y, column);            \
  }                                                                                              \
  for (; column + FPTT_LANES <= cols; column += FPTT_LANES) {                                    \
    product_tile(R, 1, FPTT_LANES, one, two, row, bias, start, y, column);                       \
  }                                                                                              \
  if (column < cols) product_tile(R, 1, cols - column, one, two, row, bias, start, y, column);
    FPTT_WITH_ROWS(rows, FPTT_TILE)
#undef FPTT_TILE
  }
}

/* -- product_transposed ---------------------------------------------------------------------- */

FPTT_INLINE int least_lane(int lane, int lanes) { return lane < lanes ? lane : lanes - 1; }

FPTT_INLINE void transposed_tile(const int rows, const int columns, size_t inner, fptt_rows x,
                                 size_t row, const fptt_parameter *w, size_t w_stride,
                                 const fptt_parameter *bias, fptt_rows start, fptt_rows y,
                                 size_t column) {
  fptt_vec sums[6][8];
  const fptt_activation *in = fptt_row(x, row);
  const fptt_parameter *lines = w + column * w_stride;
  FPTT_UNROLL for (int r = 0; r < rows; r++) {
    FPTT_UNROLL for (int c = 0; c < columns; c++) sums[r][c] = (fptt_vec){0};
  }
  size_t k = 0;
  for (; k + FPTT_LANES <= inner; k += FPTT_LANES) {
    fptt_vec across[8];
    FPTT_UNROLL for (int c = 0; c < columns; c++) {
      across[c] = FPTT_LOAD_P(lines + (size_t)c * w_stride + k);
    }
    FPTT_UNROLL for (int r = 0; r < rows; r++) {
      fptt_vec numbers = FPTT_LOAD_A(in + (size_t)r * x.stride + k);
      FPTT_UNROLL for (int c = 0; c < columns; c++) sums[r][c] += numbers * across[c];
    }
  }
  if (k < inner) {
    fptt_vec across[8];
    FPTT_UNROLL for (int c = 0; c < columns; c++) {
      across[c] = FPTT_LOAD_SOME_P(lines + (size_t)c * w_stride + k, inner - k);
    }
    FPTT_UNROLL for (int r = 0; r < rows; r++) {
      fptt_vec numbers = FPTT_LOAD_SOME_A(in + (size_t)r * x.stride + k, inner - k);
      FPTT_UNROLL for (int c = 0; c < columns; c++) sums[r][c] += numbers * across[c];
    }
  }
  FPTT_UNROLL for (int r = 0; r < rows; r++) {
    fptt_activation *to = fptt_row(y, row + (size_t)r) + column;
    FPTT_UNROLL for (int c = 0; c < columns; c += 4) {
      float four[4];
      fptt_sums(sums[r][c], sums[r][least_lane(c + 1, columns)],
                sums[r][least_lane(c + 2, columns)], sums[r][least_lane(c + 3, columns)], four);
      FPTT_UNROLL for (int i = 0; i < 4; i++) {
        if (c + i >= columns) continue;
        float sum = four[i];
        if (bias) sum += FPTT_GET_P(bias[column + (size_t)(c + i)]);
        if (start.data) sum += FPTT_GET_A(fptt_row(start, row + (size_t)r)[column + (size_t)(c + i)]);
        to[c + i] = FPTT_PUT_A(sum);
      }
    }
  }
}

void FPTT_KERNEL(product_transposed)(size_t n, size_t inner, size_t cols, fptt_rows x,
                                     const void *w, size_t w_stride, const void *bias,
                                     fptt_rows start, fptt_rows y) {
  for (size_t row = 0, rows; row < n; row += rows) {
    size_t column = 0;
    rows = fptt_block(n - row);
#define FPTT_TILE(R)                                                                               \
  for (; column + FPTT_WIDE(R) <= cols; column += FPTT_WIDE(R)) {                                  \
    transposed_tile(R, FPTT_WIDE(R), inner, x, row, w, w_stride, bias, start, y, column);          \
  }                                                                                                \
  for (; column < cols; column++) {                                                                \
    transposed_tile(R, 1, inner, x, row, w, w_stride, bias, start, y, column);                     \
  }
    FPTT_WITH_ROWS(rows, FPTT_TILE)
#undef FPTT_TILE
  }
}

/* FPTT_TILE_ROWS rows of FPTT_TILE_COLUMNS columns stay in the nearest levels of the cache. Where all
 * rows are taken at once, as many columns as the stack may carry: long runs suit the update. */
#define FPTT_LINE_COLUMNS (FPTT_LANES >= 4 ? 512 : 64)
#define FPTT_GRADIENT_WIDE(rows)                                       \
  (FPTT_WIDE(rows) * FPTT_LANES <= FPTT_TILE_COLUMNS ? FPTT_WIDE(rows) \
                                                     : FPTT_TILE_COLUMNS / FPTT_LANES)

/* -- gradient -------------------------------------------------------------------------------- */

/* sums[r][v] += p[n, r] q[n, v] over the rows of one span. Without p it is 1. */
FPTT_INLINE void gradient_rows(fptt_vec sums[6][8], const int rows, const int vectors, size_t some,
                               size_t n, const fptt_activation *p, size_t p_stride,
                               const fptt_activation *q, size_t q_stride) {
  for (size_t i = 0; i < n; i++) {
    fptt_vec across[8];
    if (some == FPTT_LANES) {
      FPTT_UNROLL for (int v = 0; v < vectors; v++) {
        across[v] = FPTT_LOAD_A(q + i * q_stride + (size_t)v * FPTT_LANES);
      }
    } else {
      across[0] = FPTT_LOAD_SOME_A(q + i * q_stride, some);
    }
    FPTT_UNROLL for (int r = 0; r < rows; r++) {
      if (p) {
        float number = FPTT_GET_A(p[i * p_stride + (size_t)r]);
        FPTT_UNROLL for (int v = 0; v < vectors; v++) sums[r][v] += number * across[v];
      } else {
        FPTT_UNROLL for (int v = 0; v < vectors; v++) sums[r][v] += across[v];
      }
    }
  }
}

/* One tile of the gradient, over rows [from, to) of all spans, added to what stands in `tile`
 * unless `fresh`. */
FPTT_INLINE void gradient_tile(const int rows, const int vectors, size_t some,
                               const fptt_span *spans, size_t count, size_t from, size_t to,
                               size_t line, size_t column, size_t p_stride, size_t q_stride,
                               float *tile, size_t tile_stride, int fresh) {
  fptt_vec sums[6][8];
  FPTT_UNROLL for (int r = 0; r < rows; r++) {
    FPTT_UNROLL for (int v = 0; v < vectors; v++) {
      float *at = tile + (size_t)r * tile_stride + (size_t)v * FPTT_LANES;
      sums[r][v] = fresh                 ? (fptt_vec){0}
                   : some == FPTT_LANES ? fptt_load(at)
                                        : fptt_load_some(at, some);
    }
  }
  for (size_t s = 0, passed = 0; s < count && passed < to; passed += spans[s].rows, s++) {
    size_t low = from > passed ? from - passed : 0;
    size_t high = to - passed < spans[s].rows ? to - passed : spans[s].rows;
    if (low >= high) continue;
    const fptt_activation *p = spans[s].p, *q = spans[s].q;
    if (p) p += low * p_stride + line;
    gradient_rows(sums, rows, vectors, some, high - low, p, p_stride,
                  q + low * q_stride + column, q_stride);
  }
  FPTT_UNROLL for (int r = 0; r < rows; r++) {
    FPTT_UNROLL for (int v = 0; v < vectors; v++) {
      float *at = tile + (size_t)r * tile_stride + (size_t)v * FPTT_LANES;
      if (some == FPTT_LANES) {
        fptt_store(at, sums[r][v]);
      } else {
        float lanes[FPTT_LANES];
        fptt_store(lanes, sums[r][v]);
        for (size_t l = 0; l < some; l++) at[l] = lanes[l];
      }
    }
  }
}

/* Lines [line, line + rows) x columns [column, column + width) of the product, into `tile`;
 * tile_stride is at least width. */
FPTT_INLINE void gradient_block(size_t rows, size_t width, const fptt_span *spans, size_t count,
                                size_t from, size_t to, size_t line, size_t column,
                                size_t p_stride, size_t q_stride, float *tile, size_t tile_stride,
                                int fresh) {
  size_t done = 0;
#define FPTT_TILE(R)                                                                               \
  for (; done + FPTT_GRADIENT_WIDE(R) * FPTT_LANES <= width; done += FPTT_GRADIENT_WIDE(R) * FPTT_LANES) {           \
    gradient_tile(R, FPTT_GRADIENT_WIDE(R), FPTT_LANES, spans, count, from, to, line, column + done,        \
                  p_stride, q_stride, tile + done, tile_stride, fresh);                            \
  }                                                                                                \
  for (; done + FPTT_LANES <= width; done += FPTT_LANES) {                                         \
    gradient_tile(R, 1, FPTT_LANES, spans, count, from, to, line, column + done, p_stride,         \
                  q_stride, tile + done, tile_stride, fresh);                                      \
  }                                                                                                \
  if (done < width) {                                                                              \
    gradient_tile(R, 1, width - done, spans, count, from, to, line, column + done, p_stride,       \
                  q_stride, tile + done, tile_stride, fresh);                                      \
  }
  FPTT_WITH_ROWS(rows, FPTT_TILE)
#undef FPTT_TILE
}

static size_t rows_of(const fptt_span *spans, size_t count) {
  size_t rows = 0;
  for (size_t s = 0; s < count; s++) rows += spans[s].rows;
  return rows;
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

void FPTT_KERNEL(gradient)(const fptt_span *spans, size_t count, size_t first, size_t last,
                           size_t b, size_t p_stride, size_t q_stride, const void *start, void *g,
                           size_t g_stride) {
  const fptt_parameter *before = start;
  fptt_parameter *out = g;
  size_t total = rows_of(spans, count);
  float tile[FPTT_MOST_ROWS * FPTT_TILE_COLUMNS];
  for (size_t column = 0; column < b; column += FPTT_TILE_COLUMNS) {
    size_t width = least(b - column, FPTT_TILE_COLUMNS);
    for (size_t line = first, rows; line < last; line += rows) {
      rows = fptt_block(last - line);
      gradient_block(rows, width, spans, count, 0, total, line, column, p_stride, q_stride, tile,
                     FPTT_TILE_COLUMNS, 1);
      for (size_t r = 0; r < rows; r++) {
        size_t at = (line + r) * g_stride + column;
        for (size_t j = 0; j < width; j++) {
          float sum = tile[r * FPTT_TILE_COLUMNS + j];
          if (before) sum += FPTT_GET_P(before[at + j]);
          out[at + j] = FPTT_PUT_P(sum);
        }
      }
    }
  }
}

/* A gradient that is applied as soon as a part of it is finished needs no memory of its own. Where
 * there are many rows they are taken in batches that stay in the cache, and what is not finished
 * waits in `tile`, which holds a x FPTT_TILE_COLUMNS floats; without `tile` there is one batch.
 *
 * `backwards` goes through the lines from the last to the first, with the same result: where an
 * update follows closely on the one before and what is learnt is a little larger than the cache,
 * it finds there what it touched last. */
uint32_t FPTT_KERNEL(gradient_update)(const fptt_span *spans, size_t count, size_t first,
                                      size_t last, size_t p_stride, size_t q_stride,
                                      const fptt_learned *at,
                                      const fptt_update_rule *rule, fptt_step step, float *tile,
                                      int backwards) {
  const size_t total = rows_of(spans, count), batch = tile ? FPTT_TILE_ROWS : total;
  const size_t columns = tile ? FPTT_TILE_COLUMNS : FPTT_LINE_COLUMNS;
  float own[FPTT_MOST_ROWS * FPTT_LINE_COLUMNS];
  uint32_t largest = 0;
  for (size_t column = 0; column < at->length; column += columns) {
    size_t width = least(at->length - column, columns);
    for (size_t from = 0, to;; from = to) {
      to = least(from + batch, total);
      for (size_t done = 0, rows; done < last - first; done += rows) {
        rows = fptt_block(last - first - done);
        size_t line = backwards ? last - done - rows : first + done;
        float *sums = tile ? tile + line * columns : own;
        gradient_block(rows, width, spans, count, from, to, line, column, p_stride, q_stride, sums,
                       columns, from == 0);
        for (size_t r = 0; to == total && r < rows; r++) {
          uint32_t bits = FPTT_KERNEL(apply)(width, sums + r * columns, at,
                                             (line + r) * at->stride + column, rule, step);
          largest = bits > largest ? bits : largest;
        }
      }
      if (to == total) break;
    }
  }
  return largest;
}
