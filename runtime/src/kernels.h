/* The kernels, one list: result, name, arguments.
 *
 * A kernel works on activations and parameters of the two types that it is compiled for (float, or
 * bfloat16 as uint16_t), behind `void *`. Sums run in float; a number is rounded to bfloat16 where
 * it is written to memory, and nowhere else.
 *
 * Letters: rows n; matrices are dense along their last dimension and have a stride in elements.
 */
#ifndef FPTT_KERNELS_H
#define FPTT_KERNELS_H

#include "fptt.h"

/* clang-format off */
#define FPTT_KERNEL_LIST(K)                                                                       \
  /* y[n, cols] = x[n, inner] w[inner, cols] + the same of `two` + bias + start; two.inner may be 0 */ \
  K(void, product, (size_t n, size_t cols, fptt_factors one, fptt_factors two, const void *bias,  \
                    fptt_rows start, fptt_rows y))                                                \
  /* y[n, cols] = x[n, inner] w[cols, inner]^T + bias + start */                                  \
  K(void, product_transposed, (size_t n, size_t inner, size_t cols, fptt_rows x, const void *w,   \
                               size_t w_stride, const void *bias, fptt_rows start, fptt_rows y))  \
  /* g[a, b] = sum over all rows of p[., a]^T q[., b] + start; without p: sums of q's columns; */ \
  /* lines [first, last) of a */                                                                  \
  K(void, gradient, (const fptt_span *spans, size_t count, size_t first, size_t last, size_t b,   \
                     size_t p_stride, size_t q_stride, const void *start, void *g,                \
                     size_t g_stride))                                                            \
  /* the same product, finished tile by tile and applied at once; the largest |value| (as bits) */\
  K(uint32_t, gradient_update, (const fptt_span *spans, size_t count, size_t first, size_t last,  \
                                size_t p_stride, size_t q_stride, const fptt_learned *at,         \
                                const fptt_update_rule *rule, fptt_step step, float *tile,        \
                                int backwards))                                                   \
  K(void, lstm_forward, (size_t n, size_t hidden, fptt_rows a, fptt_rows c_before,                \
                         fptt_rows gates, fptt_rows c, fptt_rows h))                              \
  K(void, lstm_backward, (size_t n, size_t hidden, fptt_rows gates, fptt_rows c_before,           \
                          fptt_rows c, fptt_rows dh, fptt_rows dc, fptt_rows da,                  \
                          fptt_rows dc_before))                                                   \
  K(void, gru_forward, (size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,             \
                        fptt_rows gates_out, fptt_rows h))                                        \
  K(void, gru_backward, (size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,            \
                         fptt_rows dh, fptt_rows da, fptt_rows dh_before))                        \
  K(void, rnn_forward, (size_t n, size_t hidden, fptt_rows a, fptt_rows h))                       \
  K(void, rnn_backward, (size_t n, size_t hidden, fptt_rows y, fptt_rows dh, fptt_rows da))       \
  K(void, relu, (size_t n, size_t width, fptt_rows x, fptt_rows y))                               \
  K(void, relu_gradient, (size_t n, size_t width, fptt_rows y, fptt_rows dy, fptt_rows start,     \
                          fptt_rows dx))                                                          \
  K(void, dropout, (size_t n, size_t width, fptt_rows x, const uint32_t *random, fptt_rows start, \
                    fptt_rows y, uint32_t limit, float scale, uint32_t layer, uint32_t row,       \
                    uint32_t step))                                                               \
  K(void, embedding, (size_t n, size_t width, const void *table, const int32_t *token,            \
                      fptt_rows y))                                                               \
  K(void, embedding_gradient, (size_t n, size_t width, const int32_t *token, fptt_rows dy,        \
                               void *dw))                                                         \
  K(void, add, (size_t n, size_t width, fptt_rows x, fptt_rows start, fptt_rows y))               \
  /* loss: the sum over these rows times share; d its gradient by the logits */                   \
  K(float, cross_entropy, (size_t n, size_t classes, fptt_rows logits, const int32_t *target,     \
                           float share, fptt_rows d))                                             \
  K(float, auxiliary_cross_entropy, (size_t n, size_t classes, fptt_rows logits,                  \
                                     const int32_t *target, const float *fraction, const void *q, \
                                     float share, fptt_rows d))                                   \
  /* what Q learns from these rows; to be called when the loss of all rows is there */            \
  K(void, auxiliary_learn, (size_t n, size_t classes, fptt_rows logits, const int32_t *target,    \
                            const float *fraction, void *q, float rate, int per_part))            \
  K(float, squared_error, (size_t n, size_t width, fptt_rows y, const float *target, float share, \
                           fptt_rows d))                                                          \
  K(uint32_t, update, (const fptt_learned *at, const void *g, const fptt_update_rule *rule,       \
                       fptt_step step))                                                           \
  K(void, direction, (size_t n, const void *theta, const void *g, const void *lambda,             \
                      const void *mean, void *d, float alpha, float pull))                        \
  K(float, square_sum, (size_t n, const void *d))                                                 \
  /* bits of the largest |value|; those of a NaN are larger than those of Inf (see target.h) */    \
  K(uint32_t, largest_float, (size_t n, const void *values))                                      \
  K(uint32_t, largest_bf16, (size_t n, const void *values))
/* clang-format on */

/* The same kernels for one pair of types and one instruction set. */
typedef struct {
#define FPTT_KERNEL_POINTER(result, name, arguments) result(*name) arguments;
  FPTT_KERNEL_LIST(FPTT_KERNEL_POINTER)
#undef FPTT_KERNEL_POINTER
} fptt_kernels;

#endif
