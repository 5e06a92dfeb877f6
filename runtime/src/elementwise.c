/* Rectifier, dropout, embedding, sums of two. */
#include "random.h"
#include "target.h"

void FPTT_KERNEL(relu)(size_t n, size_t width, fptt_rows x, fptt_rows y) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(x, r);
    fptt_activation *out = fptt_row(y, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < width; j++) {
      float value = FPTT_GET_A(in[j]);
      out[j] = FPTT_PUT_A(value < 0.0f ? 0.0f : value); /* NaN stays */
    }
  }
}

void FPTT_KERNEL(relu_gradient)(size_t n, size_t width, fptt_rows y, fptt_rows dy,
                                fptt_rows start, fptt_rows dx) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *value = fptt_row(y, r), *grad = fptt_row(dy, r);
    const fptt_activation *before = start.data ? fptt_row(start, r) : NULL;
    fptt_activation *out = fptt_row(dx, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < width; j++) {
      float passed = FPTT_GET_A(value[j]) > 0.0f ? FPTT_GET_A(grad[j]) : 0.0f;
      out[j] = FPTT_PUT_A(before ? passed + FPTT_GET_A(before[j]) : passed);
    }
  }
}

/* Kept is what draws a word of at least `limit` = p 2^32, and then grows by scale = 1 / (1 - p).
 * random: seed and number of the sequence; the mask of an element depends on these and on layer,
 * row, step and column alone, so the backward pass finds it again. */
void FPTT_KERNEL(dropout)(size_t n, size_t width, fptt_rows x, const uint32_t *random,
                          fptt_rows start, fptt_rows y, uint32_t limit, float scale,
                          uint32_t layer, uint32_t row, uint32_t step) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(x, r);
    const fptt_activation *before = start.data ? fptt_row(start, r) : NULL;
    fptt_activation *out = fptt_row(y, r);
    for (size_t quad = 0; quad * 4 < width; quad++) {
      uint32_t words[4] = {(uint32_t)quad, row + (uint32_t)r, step, random[1]};
      fptt_philox(words, random[0], layer);
      for (size_t j = quad * 4; j < width && j < quad * 4 + 4; j++) {
        float value = words[j % 4] >= limit ? FPTT_GET_A(in[j]) * scale : 0.0f;
        out[j] = FPTT_PUT_A(before ? value + FPTT_GET_A(before[j]) : value);
      }
    }
  }
}

void FPTT_KERNEL(embedding)(size_t n, size_t width, const void *table, const int32_t *token,
                            fptt_rows y) {
  for (size_t r = 0; r < n; r++) {
    const fptt_parameter *from = (const fptt_parameter *)table + (size_t)token[r] * width;
    fptt_activation *out = fptt_row(y, r);
    for (size_t j = 0; j < width; j++) out[j] = FPTT_PUT_A(FPTT_GET_P(from[j]));
  }
}

void FPTT_KERNEL(embedding_gradient)(size_t n, size_t width, const int32_t *token, fptt_rows dy,
                                     void *dw) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *grad = fptt_row(dy, r);
    fptt_parameter *to = (fptt_parameter *)dw + (size_t)token[r] * width;
    for (size_t j = 0; j < width; j++) {
      to[j] = FPTT_PUT_P(FPTT_GET_P(to[j]) + FPTT_GET_A(grad[j]));
    }
  }
}

void FPTT_KERNEL(add)(size_t n, size_t width, fptt_rows x, fptt_rows start, fptt_rows y) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *one = fptt_row(x, r), *other = fptt_row(start, r);
    fptt_activation *out = fptt_row(y, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < width; j++) {
      out[j] = FPTT_PUT_A(FPTT_GET_A(one[j]) + FPTT_GET_A(other[j]));
    }
  }
}
