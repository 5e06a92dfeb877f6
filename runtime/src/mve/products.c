/* products.c for the vectors of Armv8.1-M (Helium, MVE): 8 registers of 4 floats.
 *
 * One multiply-add takes a vector and a number from a general register, and LDM loads up to seven
 * such numbers at once. So where there are three or four rows, they are the lanes of one vector,
 * and the numbers are the weights:
 *
 *   product              4 rows    sums[j] += x[., k] * w[k, j]    7 columns j, x by columns
 *                        1 row     sums[v] += x[k] * w[k, v]       6 vectors v
 *   product_transposed   4 rows    sums[j] += x[., k] * w[j, k]    6 columns j, x by columns
 *                        1 row     sums[j] += x[k..] * w[j, k..]   6 columns j, lanes added up last
 *   gradient             sums[i] += q[n, v] * p[n, i]              7 lines i, one vector v
 *
 * The loops are in assembly, for compilers find neither LDM nor the registers; products.c is what
 * they compute. A sum begins with the bias and what was there before, then runs in the order of its
 * index, so rounding differs from products.c. In product_transposed with one row each lane's sum
 * does, so that there, and only there, a row's bits depend on how many rows there are.
 */
#include <arm_mve.h>

#include "apply.h"

/* Numbers k of x that are put by columns at a time, on the stack: 16 bytes each. */
#define FPTT_MVE_INNER 176
/* Columns of the gradient between two updates, 28 bytes of the stack each. */
#define FPTT_MVE_COLUMNS 64

/* A function for itself, lest all these variables share few registers. */
#define FPTT_APART static __attribute__((noinline))

#ifdef __clang__
#define FPTT_QUAD "t" /* how the compiler calls the registers q0 to q7 */
#else
#define FPTT_QUAD "w"
#endif

/* before a loop that is not worth several copies of its body */
#ifdef __clang__
#define FPTT_TURN_BY_TURN _Pragma("clang loop unroll(disable)")
#else
#define FPTT_TURN_BY_TURN
#endif

typedef float32x4_t quad;

/* n numbers k of two factors: x, and lines of w. */
typedef struct {
  const float *x, *w;
  size_t stride, n;
} piece;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* The next block when `left` are cut into blocks of equal size, at most `most`. */
static size_t block(size_t left, size_t most) {
  size_t blocks = (left + most - 1) / most;
  return (left + blocks - 1) / blocks;
}

/* Which lanes of a vector count, if `some` do. */
FPTT_INLINE mve_pred16_t lanes_of(size_t some) { return vctp32q((uint32_t)some); }

/* The distances of four rows in bytes. */
FPTT_INLINE uint32x4_t row_offsets(uint32_t stride) {
  return vmulq_n_u32(vidupq_n_u32(0, 4), stride);
}

/* Four rows k of `body`, as often as there are four; then the rest, one by one. Uses lr. */
#define FPTT_TURNS(body)       \
  "lsr lr, %[n], #2\n"         \
  "wls lr, lr, 2f\n"           \
  "1:\n" body body body body   \
  "le lr, 1b\n"                \
  "2: and %[n], %[n], #3\n"    \
  "wls lr, %[n], 4f\n"         \
  "3:\n" body                  \
  "le lr, 3b\n"                \
  "4:\n"

/* -- numbers by LDM: sums[i] += vector[k] * numbers[k, i], i < count = 4..7 ------------------- */

#define FPTT_BY_NUMBERS(load_vector)                          \
  load_vector                                                 \
  ".if %c[count] == 7\n"                                      \
  "ldm %[numbers], {r4, r5, r6, r8, r9, r10, r12}\n"          \
  ".elseif %c[count] == 6\n"                                  \
  "ldm %[numbers], {r4, r5, r6, r8, r9, r10}\n"               \
  ".elseif %c[count] == 5\n"                                  \
  "ldm %[numbers], {r4, r5, r6, r8, r9}\n"                    \
  ".else\n"                                                   \
  "ldm %[numbers], {r4, r5, r6, r8}\n"                        \
  ".endif\n"                                                  \
  "add %[numbers], %[numbers], %[numbers_stride]\n"           \
  "vfma.f32 %q[s0], q7, r4\n"                              \
  "vfma.f32 %q[s1], q7, r5\n"                              \
  "vfma.f32 %q[s2], q7, r6\n"                              \
  "vfma.f32 %q[s3], q7, r8\n"                              \
  ".if %c[count] >= 5\n"                                      \
  "vfma.f32 %q[s4], q7, r9\n"                              \
  ".endif\n"                                                  \
  ".if %c[count] >= 6\n"                                      \
  "vfma.f32 %q[s5], q7, r10\n"                             \
  ".endif\n"                                                  \
  ".if %c[count] >= 7\n"                                      \
  "vfma.f32 %q[s6], q7, r12\n"                             \
  ".endif\n"

/* Vectors that lie one behind the other; numbers in lines of w. */
FPTT_INLINE void lanes_by_lines(quad s[7], const int count, const float *vectors,
                                const float *numbers, size_t numbers_stride, size_t n) {
  __asm__ volatile(
      FPTT_TURNS(FPTT_BY_NUMBERS("vldrw.32 q7, [%[vectors]], #16\n"))
      : [s0] "+" FPTT_QUAD(s[0]), [s1] "+" FPTT_QUAD(s[1]), [s2] "+" FPTT_QUAD(s[2]),
        [s3] "+" FPTT_QUAD(s[3]), [s4] "+" FPTT_QUAD(s[4]), [s5] "+" FPTT_QUAD(s[5]),
        [s6] "+" FPTT_QUAD(s[6]), [vectors] "+r"(vectors),
        [numbers] "+r"(numbers), [n] "+r"(n)
      : [numbers_stride] "r"(4 * numbers_stride), [count] "i"(count)
      : "r4", "r5", "r6", "r8", "r9", "r10", "r12", "q7", "lr", "cc", "memory");
}

/* The same with a distance between the vectors, too; both in bytes. */
FPTT_INLINE void rows_by_rows(quad s[7], const int count, const float *vectors,
                              size_t vectors_stride, const float *numbers, size_t numbers_stride,
                              size_t n) {
  __asm__ volatile(
      FPTT_TURNS(FPTT_BY_NUMBERS("vldrw.32 q7, [%[vectors]]\n"
                                 "add %[vectors], %[vectors], %[vectors_stride]\n"))
      : [s0] "+" FPTT_QUAD(s[0]), [s1] "+" FPTT_QUAD(s[1]), [s2] "+" FPTT_QUAD(s[2]),
        [s3] "+" FPTT_QUAD(s[3]), [s4] "+" FPTT_QUAD(s[4]), [s5] "+" FPTT_QUAD(s[5]),
        [s6] "+" FPTT_QUAD(s[6]), [vectors] "+r"(vectors),
        [numbers] "+r"(numbers), [n] "+r"(n)
      : [vectors_stride] "r"(vectors_stride), [numbers_stride] "r"(numbers_stride),
        [count] "i"(count)
      : "r4", "r5", "r6", "r8", "r9", "r10", "r12", "q7", "lr", "cc", "memory");
}

/* -- one row: sums[v] += x[k] * w[k, v], v < count = 1..6 vectors ----------------------------- */

#define FPTT_BY_VECTORS(number)                       \
  "vldrw.32 q6, [%[w]]\n"                          \
  ".if %c[count] >= 2\n"                              \
  "vldrw.32 q7, [%[w], #16]\n"                     \
  ".endif\n"                                          \
  "vfma.f32 %q[s0], q6, " number "\n"              \
  ".if %c[count] >= 3\n"                              \
  "vldrw.32 q6, [%[w], #32]\n"                     \
  ".endif\n"                                          \
  ".if %c[count] >= 2\n"                              \
  "vfma.f32 %q[s1], q7, " number "\n"              \
  ".endif\n"                                          \
  ".if %c[count] >= 4\n"                              \
  "vldrw.32 q7, [%[w], #48]\n"                     \
  ".endif\n"                                          \
  ".if %c[count] >= 3\n"                              \
  "vfma.f32 %q[s2], q6, " number "\n"              \
  ".endif\n"                                          \
  ".if %c[count] >= 5\n"                              \
  "vldrw.32 q6, [%[w], #64]\n"                     \
  ".endif\n"                                          \
  ".if %c[count] >= 4\n"                              \
  "vfma.f32 %q[s3], q7, " number "\n"              \
  ".endif\n"                                          \
  ".if %c[count] >= 6\n"                              \
  "vldrw.32 q7, [%[w], #80]\n"                     \
  ".endif\n"                                          \
  ".if %c[count] >= 5\n"                              \
  "vfma.f32 %q[s4], q6, " number "\n"              \
  ".endif\n"                                          \
  ".if %c[count] >= 6\n"                              \
  "vfma.f32 %q[s5], q7, " number "\n"              \
  ".endif\n"                                          \
  "add %[w], %[w], %[stride]\n"

FPTT_INLINE void vectors_by_row(quad s[7], const int count, const float *x, const float *w,
                                size_t stride, size_t n) {
  __asm__ volatile(
      "lsr lr, %[n], #2\n"
      "wls lr, lr, 2f\n"
      "1: ldm %[x]!, {r4, r5, r6, r8}\n"
      FPTT_BY_VECTORS("r4") FPTT_BY_VECTORS("r5") FPTT_BY_VECTORS("r6") FPTT_BY_VECTORS("r8")
      "le lr, 1b\n"
      "2: and %[n], %[n], #3\n"
      "wls lr, %[n], 4f\n"
      "3: ldr r4, [%[x]], #4\n"
      FPTT_BY_VECTORS("r4")
      "le lr, 3b\n"
      "4:\n"
      : [s0] "+" FPTT_QUAD(s[0]), [s1] "+" FPTT_QUAD(s[1]), [s2] "+" FPTT_QUAD(s[2]),
        [s3] "+" FPTT_QUAD(s[3]), [s4] "+" FPTT_QUAD(s[4]), [s5] "+" FPTT_QUAD(s[5]),
        [x] "+r"(x), [w] "+r"(w), [n] "+r"(n)
      : [stride] "r"(4 * stride), [count] "i"(count)
      : "r4", "r5", "r6", "r8", "q6", "q7", "lr", "cc", "memory");
}

/* -- product_transposed: sums[j] of count = 6 or 3 lines of w ---------------------------------- */

/* One row, lanes along k: n is a number of vectors. */
#define FPTT_DOT(sum, line)                      \
  "vldrw.32 q7, [%[" line "]], #16\n"         \
  "vfma.f32 %q[" sum "], q6, q7\n"
#define FPTT_DOTS                                                   \
  "vldrw.32 q6, [%[x]], #16\n"                                      \
  FPTT_DOT("s0", "w0") FPTT_DOT("s1", "w1") FPTT_DOT("s2", "w2")    \
  ".if %c[count] == 6\n"                                            \
  FPTT_DOT("s3", "w3") FPTT_DOT("s4", "w4") FPTT_DOT("s5", "w5")    \
  ".endif\n"

FPTT_INLINE void dots(quad s[7], const int count, const float *x, const float *w[6], size_t n) {
  __asm__ volatile(
      FPTT_TURNS(FPTT_DOTS)
      : [s0] "+" FPTT_QUAD(s[0]), [s1] "+" FPTT_QUAD(s[1]), [s2] "+" FPTT_QUAD(s[2]),
        [s3] "+" FPTT_QUAD(s[3]), [s4] "+" FPTT_QUAD(s[4]), [s5] "+" FPTT_QUAD(s[5]),
        [x] "+r"(x), [n] "+r"(n),
        [w0] "+r"(w[0]), [w1] "+r"(w[1]), [w2] "+r"(w[2]), [w3] "+r"(w[3]), [w4] "+r"(w[4]),
        [w5] "+r"(w[5])
      : [count] "i"(count)
      : "q6", "q7", "lr", "cc", "memory");
}

/* Rows as lanes: n is a number of pairs of k. Two lines of w at a time, so that no multiply-add
 * waits for the one before. */
#define FPTT_TWO(first, second, line, next)       \
  "ldrd r8, r9, [%[" line "]], #8\n"              \
  "ldrd r10, r12, [%[" next "]], #8\n"              \
  "vfma.f32 %q[" first "], q6, r8\n"           \
  "vfma.f32 %q[" second "], q6, r10\n"          \
  "vfma.f32 %q[" first "], q7, r9\n"           \
  "vfma.f32 %q[" second "], q7, r12\n"
#define FPTT_PAIRS                                \
  "vldrw.32 q6, [%[x]], #16\n"                    \
  "vldrw.32 q7, [%[x]], #16\n"                    \
  FPTT_TWO("s0", "s1", "w0", "w1")                \
  ".if %c[count] == 6\n"                          \
  FPTT_TWO("s2", "s3", "w2", "w3")                \
  FPTT_TWO("s4", "s5", "w4", "w5")                \
  ".else\n"                                       \
  "ldrd r8, r9, [%[w2]], #8\n"                    \
  "vfma.f32 %q[s2], q6, r8\n"                     \
  "vfma.f32 %q[s2], q7, r9\n"                     \
  ".endif\n"

FPTT_INLINE void lanes_by_columns(quad s[7], const int count, const float *x, const float *w[6],
                                  size_t n) {
  __asm__ volatile(
      FPTT_TURNS(FPTT_PAIRS)
      : [s0] "+" FPTT_QUAD(s[0]), [s1] "+" FPTT_QUAD(s[1]), [s2] "+" FPTT_QUAD(s[2]),
        [s3] "+" FPTT_QUAD(s[3]), [s4] "+" FPTT_QUAD(s[4]), [s5] "+" FPTT_QUAD(s[5]),
        [x] "+r"(x), [n] "+r"(n),
        [w0] "+r"(w[0]), [w1] "+r"(w[1]), [w2] "+r"(w[2]), [w3] "+r"(w[3]), [w4] "+r"(w[4]),
        [w5] "+r"(w[5])
      : [count] "i"(count)
      : "r8", "r9", "r10", "r12", "q6", "q7", "lr", "cc", "memory");
}

/* -- rows as lanes ---------------------------------------------------------------------------- */

/* Three or four rows of x, numbers [from, from + n), by columns; the lane of a row that is not
 * there gets some other row's numbers. */
static void by_columns(size_t rows, fptt_rows x, size_t row, size_t from, size_t n, float *to) {
  const float *in[4];
  for (size_t r = 0; r < 4; r++) in[r] = (float *)fptt_row(x, row + least(r, rows - 1)) + from;
  size_t k = 0;
  for (; k + 4 <= n; k += 4, to += 16) {
    float32x4x4_t four = {{vldrwq_f32(in[0] + k), vldrwq_f32(in[1] + k), vldrwq_f32(in[2] + k),
                           vldrwq_f32(in[3] + k)}};
    vst4q_f32(to, four);
  }
  for (; k < n; k++, to += 4) {
    for (size_t r = 0; r < 4; r++) to[r] = in[r][k];
  }
}

/* Columns whose rows are lanes: each begins with its bias and with what stands in `before`; where
 * there is none, that is NULL. */
typedef struct {
  const float *bias, *before;
  float *y;
  uint32_t before_stride, y_stride, rows;
} columns_of;

/* `begun`: y holds the sums of what came before. */
FPTT_INLINE columns_of columns_from(int begun, const float *bias, fptt_rows start, fptt_rows y,
                                    size_t row, size_t rows) {
  const fptt_rows before = begun ? y : start;
  return (columns_of){begun ? NULL : bias, before.data ? fptt_row(before, row) : NULL,
                      fptt_row(y, row), (uint32_t)before.stride, (uint32_t)y.stride,
                      (uint32_t)rows};
}

/* The first `some` columns from `column` on, the others zero. */
FPTT_INLINE void load_columns(quad s[7], const int count, size_t some, const columns_of *to,
                              size_t column) {
  const mve_pred16_t rows = lanes_of(to->rows);
  if (to->before) {
    const uint32x4_t offsets = row_offsets(to->before_stride);
    const float *before = to->before + column;
    FPTT_UNROLL for (int c = 0; c < count; c++) {
      s[c] = vldrwq_gather_offset_z_f32(before + ((size_t)c < some ? c : 0), offsets, rows);
    }
  } else {
    FPTT_UNROLL for (int c = 0; c < count; c++) s[c] = vdupq_n_f32(0.0f);
  }
  if (to->bias) {
    FPTT_UNROLL for (int c = 0; c < count; c++) {
      s[c] = vaddq_n_f32(s[c], to->bias[column + ((size_t)c < some ? (size_t)c : 0)]);
    }
  }
  FPTT_UNROLL for (int c = count; c < 7; c++) s[c] = vuninitializedq_f32();
}

FPTT_INLINE void store_columns(const quad s[7], const int count, size_t some, const columns_of *to,
                               size_t column) {
  const mve_pred16_t rows = lanes_of(to->rows);
  const uint32x4_t offsets = row_offsets(to->y_stride);
  float *y = to->y + column;
  FPTT_UNROLL for (int c = 0; c < count; c++) {
    if ((size_t)c < some) vstrwq_scatter_offset_p_f32(y + c, offsets, s[c], rows);
  }
}

FPTT_INLINE void product_lanes(const int count, const piece pieces[2], const columns_of *to,
                               size_t column) {
  quad sums[7];
  load_columns(sums, count, (size_t)count, to, column);
  FPTT_TURN_BY_TURN for (const piece *f = pieces; f < pieces + 2 && f->n; f++) {
    lanes_by_lines(sums, count, f->x, f->w + column, f->stride, f->n);
  }
  store_columns(sums, count, (size_t)count, to, column);
}

FPTT_APART void product_7_lanes(const piece pieces[2], const columns_of *to, size_t column) {
  product_lanes(7, pieces, to, column);
}

FPTT_APART void product_6_lanes(const piece pieces[2], const columns_of *to, size_t column) {
  product_lanes(6, pieces, to, column);
}

/* From so many columns on, blocks of equal size hold 7 or 6 of them. */
#define FPTT_MVE_MANY 30

/* Three or four rows of the product, FPTT_MVE_MANY columns or more. */
FPTT_APART void product_of_rows(size_t rows, size_t row, size_t cols, fptt_factors one,
                            fptt_factors two, const float *bias, fptt_rows start, fptt_rows y) {
  float x[4 * FPTT_MVE_INNER];
  const fptt_factors factors[2] = {one, two};
  size_t done = 0;
  do {
    piece pieces[2] = {{0}, {0}};
    size_t passed = 0, some = 0; /* numbers of the factors before; numbers of this turn */
    int used = 0;
    for (int i = 0; i < 2; passed += factors[i++].inner) {
      const size_t from = done + some - passed; /* of these factors, if any are left */
      if (done + some < passed || from >= factors[i].inner) continue;
      piece *f = &pieces[used++];
      f->n = least(factors[i].inner - from, FPTT_MVE_INNER - some);
      f->x = x + 4 * some, f->stride = factors[i].w_stride;
      f->w = (const float *)factors[i].w + from * f->stride;
      by_columns(rows, factors[i].x, row, from, f->n, x + 4 * some);
      some += f->n;
      if (some == FPTT_MVE_INNER) break;
    }
    const columns_of to = columns_from(done > 0, bias, start, y, row, rows);
    for (size_t column = 0, count; column < cols; column += count) {
      count = block(cols - column, 7);
      (count == 7 ? product_7_lanes : product_6_lanes)(pieces, &to, column);
    }
    done += some;
  } while (done < one.inner + two.inner);
}

/* -- product ---------------------------------------------------------------------------------- */

/* A row: begins with the bias and with what stands in `start`, if any. */
typedef struct {
  piece pieces[2];
  const float *bias, *start;
  float *y;
} one_row;

FPTT_INLINE void row_tile(const int count, const one_row *of, size_t column) {
  quad sums[7];
  float *y = of->y + column;
  if (of->bias) {
    FPTT_UNROLL for (int v = 0; v < count; v++) sums[v] = vldrwq_f32(of->bias + column + 4 * v);
  } else {
    FPTT_UNROLL for (int v = 0; v < count; v++) sums[v] = vdupq_n_f32(0.0f);
  }
  if (of->start) {
    FPTT_UNROLL for (int v = 0; v < count; v++) {
      sums[v] = vaddq_f32(sums[v], vldrwq_f32(of->start + column + 4 * v));
    }
  }
  FPTT_UNROLL for (int v = count; v < 7; v++) sums[v] = vuninitializedq_f32();
  FPTT_TURN_BY_TURN for (const piece *f = of->pieces; f < of->pieces + 2 && f->n; f++) {
    vectors_by_row(sums, count, f->x, f->w + column, f->stride, f->n);
  }
  FPTT_UNROLL for (int v = 0; v < count; v++) vstrwq_f32(y + 4 * v, sums[v]);
}

FPTT_APART void row_of_6_vectors(const one_row *of, size_t column) { row_tile(6, of, column); }
FPTT_APART void row_of_3_vectors(const one_row *of, size_t column) { row_tile(3, of, column); }

/* At most four columns. */
FPTT_APART void rest_of_row(const one_row *of, size_t column, size_t some) {
  const mve_pred16_t lanes = lanes_of(some);
  quad sum = of->bias ? vldrwq_z_f32(of->bias + column, lanes) : vdupq_n_f32(0.0f);
  if (of->start) sum = vaddq_f32(sum, vldrwq_z_f32(of->start + column, lanes));
  for (const piece *f = of->pieces; f < of->pieces + 2 && f->n; f++) {
    const float *x = f->x, *w = f->w + column;
    for (size_t k = f->n; k; k--, w += f->stride) {
      sum = vfmaq_n_f32(sum, vldrwq_z_f32(w, lanes), *x++);
    }
  }
  vstrwq_p_f32(of->y + column, sum, lanes);
}

static void product_of_row(size_t cols, const one_row *of) {
  size_t column = 0;
  for (; column + 24 <= cols; column += 24) row_of_6_vectors(of, column);
  for (; column + 12 <= cols; column += 12) row_of_3_vectors(of, column);
  for (; column < cols; column += 4) rest_of_row(of, column, least(cols - column, 4));
}

void FPTT_KERNEL(product)(size_t n, size_t cols, fptt_factors one, fptt_factors two,
                          const void *bias, fptt_rows start, fptt_rows y) {
  for (size_t row = 0, rows; row < n; row += rows) {
    rows = n - row >= 3 && cols >= FPTT_MVE_MANY ? least(n - row, 4) : 1;
    if (rows > 1) {
      product_of_rows(rows, row, cols, one, two, bias, start, y);
      continue;
    }
    one_row of = {{{0}, {0}}, bias, start.data ? fptt_row(start, row) : NULL, fptt_row(y, row)};
    int used = 0;
    if (one.inner) {
      of.pieces[used++] = (piece){fptt_row(one.x, row), one.w, one.w_stride, one.inner};
    }
    if (two.inner) {
      of.pieces[used++] = (piece){fptt_row(two.x, row), two.w, two.w_stride, two.inner};
    }
    product_of_row(cols, &of);
  }
}

/* -- product_transposed ----------------------------------------------------------------------- */

/* n numbers of lines of w. Of six lines those of `count` columns are there; for the others stands
 * the first one. */
typedef struct {
  const float *w;
  size_t stride, n;
} lines_of_w;

FPTT_INLINE void lines_at(const lines_of_w *of, size_t column, size_t count, const float *w[6]) {
  w[0] = of->w + column * of->stride;
  FPTT_UNROLL for (size_t c = 1; c < 6; c++) w[c] = c < count ? w[c - 1] + of->stride : w[0];
}

FPTT_INLINE void transposed_lanes(const int most, size_t count, const lines_of_w *of,
                                  const float *x, const columns_of *to, size_t column) {
  quad sums[7];
  const float *w[6];
  load_columns(sums, most, count, to, column);
  lines_at(of, column, count, w);
  lanes_by_columns(sums, most, x, w, of->n / 2);
  if (of->n & 1) {
    const quad last = vldrwq_f32(x + 4 * (of->n - 1));
    lines_at(of, column, count, w);
    FPTT_UNROLL for (int c = 0; c < most; c++) {
      sums[c] = vfmaq_n_f32(sums[c], last, w[c][of->n - 1]);
    }
  }
  store_columns(sums, most, count, to, column);
}

FPTT_APART void transposed_6_lanes(const lines_of_w *of, const float *x, const columns_of *to,
                                   size_t column) {
  transposed_lanes(6, 6, of, x, to, column);
}

FPTT_APART void transposed_few_lanes(size_t count, const lines_of_w *of, const float *x,
                                     const columns_of *to, size_t column) {
  transposed_lanes(3, count, of, x, to, column);
}

FPTT_APART void transposed_of_rows(size_t rows, size_t row, size_t cols, fptt_rows x,
                                   lines_of_w of, const float *bias, fptt_rows start,
                                   fptt_rows y) {
  float across[4 * FPTT_MVE_INNER];
  const size_t inner = of.n;
  size_t from = 0;
  do {
    const columns_of to = columns_from(from > 0, bias, start, y, row, rows);
    size_t column = 0;
    of.n = inner ? block(inner - from, FPTT_MVE_INNER) : 0;
    by_columns(rows, x, row, from, of.n, across);
    for (; column + 6 <= cols; column += 6) transposed_6_lanes(&of, across, &to, column);
    for (; column < cols; column += 3) {
      transposed_few_lanes(least(cols - column, 3), &of, across, &to, column);
    }
    from += of.n, of.w += of.n;
  } while (from < inner);
}

FPTT_INLINE void transposed_row(const int most, size_t count, const lines_of_w *of, const float *x,
                                const float *bias, const float *start, float *y, size_t column) {
  quad sums[7];
  const float *w[6];
  FPTT_UNROLL for (int c = 0; c < most; c++) sums[c] = vdupq_n_f32(0.0f);
  FPTT_UNROLL for (int c = most; c < 7; c++) sums[c] = vuninitializedq_f32();
  lines_at(of, column, count, w);
  dots(sums, most, x, w, of->n / 4);
  if (of->n % 4) {
    const mve_pred16_t lanes = lanes_of(of->n % 4);
    const size_t k = of->n - of->n % 4;
    const quad last = vldrwq_z_f32(x + k, lanes);
    lines_at(of, column, count, w);
    FPTT_UNROLL for (int c = 0; c < most; c++) {
      sums[c] = vfmaq_f32(sums[c], last, vldrwq_z_f32(w[c] + k, lanes));
    }
  }
  float totals[6];
  FPTT_UNROLL for (int c = 0; c < most; c++) {
    totals[c] = (vgetq_lane_f32(sums[c], 0) + vgetq_lane_f32(sums[c], 2)) +
                (vgetq_lane_f32(sums[c], 1) + vgetq_lane_f32(sums[c], 3));
  }
  if (bias) {
    FPTT_UNROLL for (size_t c = 0; c < (size_t)most; c++) {
      totals[c] += bias[c < count ? column + c : 0];
    }
  }
  if (start) {
    FPTT_UNROLL for (size_t c = 0; c < (size_t)most; c++) {
      totals[c] += start[c < count ? column + c : 0];
    }
  }
  y += column;
  FPTT_UNROLL for (size_t c = 0; c < (size_t)most; c++) {
    if (c < count) y[c] = totals[c];
  }
}

FPTT_APART void transposed_row_6(const lines_of_w *of, const float *x, const float *bias,
                                 const float *start, float *y, size_t column) {
  transposed_row(6, 6, of, x, bias, start, y, column);
}

FPTT_APART void transposed_row_few(size_t count, const lines_of_w *of, const float *x,
                                   const float *bias, const float *start, float *y,
                                   size_t column) {
  transposed_row(3, count, of, x, bias, start, y, column);
}

void FPTT_KERNEL(product_transposed)(size_t n, size_t inner, size_t cols, fptt_rows x,
                                     const void *w, size_t w_stride, const void *bias,
                                     fptt_rows start, fptt_rows y) {
  const lines_of_w of = {w, w_stride, inner};
  for (size_t row = 0, rows; row < n; row += rows) {
    rows = n - row >= 3 ? least(n - row, 4) : 1;
    if (rows > 1) {
      transposed_of_rows(rows, row, cols, x, of, bias, start, y);
      continue;
    }
    const float *in = fptt_row(x, row), *before = start.data ? fptt_row(start, row) : NULL;
    float *to = fptt_row(y, row);
    size_t column = 0;
    for (; column + 6 <= cols; column += 6) transposed_row_6(&of, in, bias, before, to, column);
    for (; column < cols; column += 3) {
      transposed_row_few(least(cols - column, 3), &of, in, bias, before, to, column);
    }
  }
}

/* -- gradient --------------------------------------------------------------------------------- */

/* Spans of rows, as `gradient` has them, and the place of the first column; strides in bytes. */
typedef struct {
  const fptt_span *first, *end;
  size_t line, column, p_bytes, q_bytes;
} rows_of_spans;

/* Four to seven lines of whole vectors of columns over all rows of all spans, into `tile`. */
FPTT_INLINE void gradient_lines(const int count, const rows_of_spans *of, size_t vectors,
                                float *tile) {
  size_t column = of->column;
  for (; vectors; vectors--, column += 4, tile += 4) {
    quad sums[7];
    FPTT_UNROLL for (int i = 0; i < count; i++) sums[i] = vdupq_n_f32(0.0f);
    FPTT_UNROLL for (int i = count; i < 7; i++) sums[i] = vuninitializedq_f32();
    const fptt_span *s = of->first;
    do {
      rows_by_rows(sums, count, (const float *)s->q + column, of->q_bytes,
                   (const float *)s->p + of->line, of->p_bytes, s->rows);
    } while (++s < of->end);
    FPTT_UNROLL for (int i = 0; i < count; i++) {
      vstrwq_f32(tile + i * FPTT_MVE_COLUMNS, sums[i]);
    }
  }
}

FPTT_APART void gradient_7_lines(const rows_of_spans *of, size_t vectors, float *tile) {
  gradient_lines(7, of, vectors, tile);
}

FPTT_APART void gradient_6_lines(const rows_of_spans *of, size_t vectors, float *tile) {
  gradient_lines(6, of, vectors, tile);
}

FPTT_APART void gradient_5_lines(const rows_of_spans *of, size_t vectors, float *tile) {
  gradient_lines(5, of, vectors, tile);
}

FPTT_APART void gradient_4_lines(const rows_of_spans *of, size_t vectors, float *tile) {
  gradient_lines(4, of, vectors, tile);
}

/* One line of `some` columns, at most 4; without p the sum of q's columns. */
FPTT_APART void gradient_rest(const fptt_span *spans, size_t count, size_t line, size_t column,
                          size_t some, size_t p_stride, size_t q_stride, float *tile) {
  const mve_pred16_t lanes = lanes_of(some);
  quad sum = vdupq_n_f32(0.0f);
  for (size_t s = 0; s < count; s++) {
    const float *p = spans[s].p, *q = (const float *)spans[s].q + column;
    if (p) {
      p += line;
      for (size_t i = spans[s].rows; i; i--, q += q_stride, p += p_stride) {
        sum = vfmaq_n_f32(sum, vldrwq_z_f32(q, lanes), *p);
      }
    } else {
      for (size_t i = spans[s].rows; i; i--, q += q_stride) {
        sum = vaddq_f32(sum, vldrwq_z_f32(q, lanes));
      }
    }
  }
  vstrwq_p_f32(tile, sum, lanes);
}

/* A line whose numbers p lie one behind the other, 24 columns at a time. */
FPTT_APART void gradient_of_line(const fptt_span *spans, size_t count, size_t line, size_t column,
                                 size_t q_stride, float *tile) {
  quad sums[7];
  FPTT_UNROLL for (int v = 0; v < 7; v++) sums[v] = vdupq_n_f32(0.0f);
  for (size_t s = 0; s < count; s++) {
    vectors_by_row(sums, 6, (const float *)spans[s].p + line,
                   (const float *)spans[s].q + column, q_stride, spans[s].rows);
  }
  FPTT_UNROLL for (int v = 0; v < 6; v++) vstrwq_f32(tile + 4 * v, sums[v]);
}

/* Lines [line, line + rows) x columns [column, column + width) of the product, rows <= 7 and
 * width <= FPTT_MVE_COLUMNS, into `tile`. */
FPTT_APART void gradient_block(size_t rows, size_t width, const fptt_span *spans, size_t count,
                           size_t line, size_t column, size_t p_stride, size_t q_stride,
                           float *tile) {
  size_t done = 0;
  if (rows >= 4 && count) {
    const rows_of_spans of = {spans, spans + count, line, column, 4 * p_stride, 4 * q_stride};
    switch (rows) {
      case 4: gradient_4_lines(&of, width / 4, tile); break;
      case 5: gradient_5_lines(&of, width / 4, tile); break;
      case 6: gradient_6_lines(&of, width / 4, tile); break;
      default: gradient_7_lines(&of, width / 4, tile); break;
    }
    done = width - width % 4;
  } else if (count && spans[0].p && rows == 1 && p_stride == 1) {
    for (; done + 24 <= width; done += 24) {
      gradient_of_line(spans, count, line, column + done, q_stride, tile + done);
    }
  }
  for (; done < width; done += 4) {
    for (size_t r = 0; r < rows; r++) {
      gradient_rest(spans, count, line + r, column + done, least(width - done, 4), p_stride,
                    q_stride, tile + r * FPTT_MVE_COLUMNS + done);
    }
  }
}

void FPTT_KERNEL(gradient)(const fptt_span *spans, size_t count, size_t first, size_t last,
                           size_t b, size_t p_stride, size_t q_stride, const void *start, void *g,
                           size_t g_stride) {
  float tile[7 * FPTT_MVE_COLUMNS];
  for (size_t line = first, rows; line < last; line += rows) {
    rows = block(last - line, 7);
    for (size_t column = 0; column < b; column += FPTT_MVE_COLUMNS) {
      size_t width = least(b - column, FPTT_MVE_COLUMNS);
      gradient_block(rows, width, spans, count, line, column, p_stride, q_stride, tile);
      for (size_t r = 0; r < rows; r++) {
        const float *sums = tile + r * FPTT_MVE_COLUMNS;
        const float *before = start;
        float *out = (float *)g + (line + r) * g_stride + column;
        if (before) before += (line + r) * g_stride + column;
        for (int32_t j = 0, left = (int32_t)width; left > 0; j += 4, left -= 4) {
          mve_pred16_t lanes = vctp32q((uint32_t)left);
          quad sum = vldrwq_z_f32(sums + j, lanes);
          if (before) sum = vaddq_f32(sum, vldrwq_z_f32(before + j, lanes));
          vstrwq_p_f32(out + j, sum, lanes);
        }
      }
    }
  }
}

/* All rows are taken at once, so `tile` is not needed. */
uint32_t FPTT_KERNEL(gradient_update)(const fptt_span *spans, size_t count, size_t first,
                                      size_t last, size_t p_stride, size_t q_stride,
                                      const fptt_learned *at, const fptt_update_rule *rule,
                                      fptt_step step, float *tile, int backwards) {
  float own[7 * FPTT_MVE_COLUMNS];
  uint32_t largest = 0;
  (void)tile;
  for (size_t done = 0, rows; done < last - first; done += rows) {
    rows = block(last - first - done, 7);
    size_t line = backwards ? last - done - rows : first + done;
    for (size_t column = 0; column < at->length; column += FPTT_MVE_COLUMNS) {
      size_t width = least(at->length - column, FPTT_MVE_COLUMNS);
      gradient_block(rows, width, spans, count, line, column, p_stride, q_stride, own);
      uint32_t bits = FPTT_KERNEL(apply_lines)(rows, width, own, FPTT_MVE_COLUMNS, at,
                                               line * at->stride + column, rule, &step);
      largest = bits > largest ? bits : largest;
    }
  }
  return largest;
}
