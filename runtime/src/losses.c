/* Losses with their gradients. Callers give `share`, one over the number of what is counted. */
#include "target.h"

/* log of the sum of exp over a row, as maximum + log(sum); the sum is of exp(x - maximum). */
typedef struct {
  float maximum, total;
} softmax_scale;

static softmax_scale scale_of(const fptt_activation *logits, size_t classes) {
  softmax_scale scale = {FPTT_GET_A(logits[0]), 0.0f};
  for (size_t j = 1; j < classes; j++) {
    float value = FPTT_GET_A(logits[j]);
    if (!(value <= scale.maximum)) scale.maximum = value; /* a NaN stays */
  }
  for (size_t j = 0; j < classes; j++) {
    scale.total += fptt_exp(FPTT_GET_A(logits[j]) - scale.maximum);
  }
  return scale;
}

static void clear(fptt_activation *d, size_t count) {
  for (size_t j = 0; j < count; j++) d[j] = FPTT_PUT_A(0.0f);
}

float FPTT_KERNEL(cross_entropy)(size_t n, size_t classes, fptt_rows logits,
                                 const int32_t *target, float share, fptt_rows d) {
  float loss = 0.0f;
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(logits, r);
    fptt_activation *out = fptt_row(d, r);
    if (target[r] < 0) {
      clear(out, classes);
      continue;
    }
    const size_t label = (size_t)target[r];
    const softmax_scale scale = scale_of(in, classes);
    loss += fptt_log(scale.total) - (FPTT_GET_A(in[label]) - scale.maximum);
    for (size_t j = 0; j < classes; j++) {
      float part = fptt_exp(FPTT_GET_A(in[j]) - scale.maximum) / scale.total * share;
      out[j] = FPTT_PUT_A(j == label ? part - share : part);
    }
  }
  return loss * share;
}

float FPTT_KERNEL(auxiliary_cross_entropy)(size_t n, size_t classes, fptt_rows logits,
                                           const int32_t *target, const float *fraction,
                                           const void *q, float share, fptt_rows d) {
  const fptt_parameter *all = q;
  float loss = 0.0f;
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(logits, r);
    fptt_activation *out = fptt_row(d, r);
    if (target[r] < 0) {
      clear(out, classes);
      continue;
    }
    const size_t label = (size_t)target[r];
    const fptt_parameter *known = all + label * classes;
    const softmax_scale scale = scale_of(in, classes);
    const float b = fraction[r], log_total = fptt_log(scale.total);
    float weight = 0.0f; /* the sum of the soft target, 1 but for rounding */
    for (size_t j = 0; j < classes; j++) {
      float soft = (1.0f - b) * FPTT_GET_P(known[j]) + (j == label ? b : 0.0f);
      weight += soft;
      loss += soft * (log_total - (FPTT_GET_A(in[j]) - scale.maximum));
    }
    for (size_t j = 0; j < classes; j++) {
      float soft = (1.0f - b) * FPTT_GET_P(known[j]) + (j == label ? b : 0.0f);
      float part = fptt_exp(FPTT_GET_A(in[j]) - scale.maximum) / scale.total;
      out[j] = FPTT_PUT_A((part * weight - soft) * share);
    }
  }
  return loss * share;
}

void FPTT_KERNEL(auxiliary_learn)(size_t n, size_t classes, fptt_rows logits,
                                  const int32_t *target, const float *fraction, void *q,
                                  float rate, int per_part) {
  fptt_parameter *all = q;
  for (size_t r = 0; r < n; r++) {
    if (target[r] < 0 || !(per_part || fraction[r] == 1.0f)) continue;
    const fptt_activation *in = fptt_row(logits, r);
    fptt_parameter *known = all + (size_t)target[r] * classes;
    const softmax_scale scale = scale_of(in, classes);
    for (size_t j = 0; j < classes; j++) {
      float part = fptt_exp(FPTT_GET_A(in[j]) - scale.maximum) / scale.total;
      known[j] = FPTT_PUT_P((1.0f - rate) * FPTT_GET_P(known[j]) + rate * part);
    }
  }
}

float FPTT_KERNEL(squared_error)(size_t n, size_t width, fptt_rows y, const float *target,
                                 float share, fptt_rows d) {
  float loss = 0.0f;
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(y, r);
    const float *wanted = target + r * width;
    fptt_activation *out = fptt_row(d, r);
    if (wanted[0] != wanted[0]) {
      clear(out, width);
      continue;
    }
    for (size_t j = 0; j < width; j++) {
      float difference = FPTT_GET_A(in[j]) - wanted[j];
      loss += difference * difference;
      out[j] = FPTT_PUT_A(difference * (2.0f * share));
    }
  }
  return loss * share;
}
