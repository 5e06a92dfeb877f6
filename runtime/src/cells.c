/* The element-wise halves of the recurrent cells, forward and backward. The formulas are those of
 * the op table; outputs may be the memory of inputs. */
#include "target.h"

void FPTT_KERNEL(lstm_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows c_before,
                               fptt_rows gates, fptt_rows c, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(a, r), *before = fptt_row(c_before, r);
    fptt_activation *out = fptt_row(gates, r), *cell = fptt_row(c, r), *state = fptt_row(h, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < hidden; j++) {
      float i = fptt_sigmoid(FPTT_GET_A(in[j]));
      float f = fptt_sigmoid(FPTT_GET_A(in[hidden + j]));
      float g = fptt_tanh(FPTT_GET_A(in[2 * hidden + j]));
      float o = fptt_sigmoid(FPTT_GET_A(in[3 * hidden + j]));
      float new = f * FPTT_GET_A(before[j]) + i * g;
      out[j] = FPTT_PUT_A(i);
      out[hidden + j] = FPTT_PUT_A(f);
      out[2 * hidden + j] = FPTT_PUT_A(g);
      out[3 * hidden + j] = FPTT_PUT_A(o);
      cell[j] = FPTT_PUT_A(new);
      state[j] = FPTT_PUT_A(o * fptt_tanh(new));
    }
  }
}

void FPTT_KERNEL(lstm_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows c_before,
                                fptt_rows c, fptt_rows dh, fptt_rows dc, fptt_rows da,
                                fptt_rows dc_before) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(gates, r), *before = fptt_row(c_before, r);
    const fptt_activation *cell = fptt_row(c, r), *grad_h = fptt_row(dh, r);
    const fptt_activation *grad_c = fptt_row(dc, r);
    fptt_activation *out = fptt_row(da, r), *next = fptt_row(dc_before, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < hidden; j++) {
      float i = FPTT_GET_A(in[j]), f = FPTT_GET_A(in[hidden + j]);
      float g = FPTT_GET_A(in[2 * hidden + j]), o = FPTT_GET_A(in[3 * hidden + j]);
      float squashed = fptt_tanh(FPTT_GET_A(cell[j])), by_h = FPTT_GET_A(grad_h[j]);
      float by_c = FPTT_GET_A(grad_c[j]) + by_h * o * (1.0f - squashed * squashed);
      float from = FPTT_GET_A(before[j]);
      out[j] = FPTT_PUT_A(by_c * g * (i * (1.0f - i)));
      out[hidden + j] = FPTT_PUT_A(by_c * from * (f * (1.0f - f)));
      out[2 * hidden + j] = FPTT_PUT_A(by_c * i * (1.0f - g * g));
      out[3 * hidden + j] = FPTT_PUT_A(by_h * squashed * (o * (1.0f - o)));
      next[j] = FPTT_PUT_A(by_c * f);
    }
  }
}

void FPTT_KERNEL(gru_forward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                              fptt_rows gates_out, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(gates, r), *before = fptt_row(h_before, r);
    fptt_activation *out = fptt_row(gates_out, r), *state = fptt_row(h, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < hidden; j++) {
      float reset = fptt_sigmoid(FPTT_GET_A(in[j]));
      float z = fptt_sigmoid(FPTT_GET_A(in[hidden + j]));
      float q = FPTT_GET_A(in[3 * hidden + j]);
      float candidate = fptt_tanh(FPTT_GET_A(in[2 * hidden + j]) + reset * q);
      float new = (1.0f - z) * candidate + z * FPTT_GET_A(before[j]);
      out[j] = FPTT_PUT_A(reset);
      out[hidden + j] = FPTT_PUT_A(z);
      out[2 * hidden + j] = FPTT_PUT_A(candidate);
      out[3 * hidden + j] = FPTT_PUT_A(q);
      state[j] = FPTT_PUT_A(new);
    }
  }
}

void FPTT_KERNEL(gru_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                               fptt_rows dh, fptt_rows da, fptt_rows dh_before) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(gates, r), *before = fptt_row(h_before, r);
    const fptt_activation *grad = fptt_row(dh, r);
    fptt_activation *out = fptt_row(da, r), *next = fptt_row(dh_before, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < hidden; j++) {
      float reset = FPTT_GET_A(in[j]), z = FPTT_GET_A(in[hidden + j]);
      float candidate = FPTT_GET_A(in[2 * hidden + j]), q = FPTT_GET_A(in[3 * hidden + j]);
      float by_h = FPTT_GET_A(grad[j]);
      float by_n = by_h * (1.0f - z) * (1.0f - candidate * candidate);
      float by_z = by_h * (FPTT_GET_A(before[j]) - candidate) * (z * (1.0f - z));
      out[j] = FPTT_PUT_A(by_n * q * (reset * (1.0f - reset)));
      out[hidden + j] = FPTT_PUT_A(by_z);
      out[2 * hidden + j] = FPTT_PUT_A(by_n);
      out[3 * hidden + j] = FPTT_PUT_A(by_n * reset);
      next[j] = FPTT_PUT_A(by_h * z);
    }
  }
}

void FPTT_KERNEL(rnn_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(a, r);
    fptt_activation *out = fptt_row(h, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < hidden; j++) {
      out[j] = FPTT_PUT_A(fptt_tanh(FPTT_GET_A(in[j])));
    }
  }
}

void FPTT_KERNEL(rnn_backward)(size_t n, size_t hidden, fptt_rows y, fptt_rows dh, fptt_rows da) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *state = fptt_row(y, r), *grad = fptt_row(dh, r);
    fptt_activation *out = fptt_row(da, r);
    FPTT_INDEPENDENT for (size_t j = 0; j < hidden; j++) {
      float value = FPTT_GET_A(state[j]);
      out[j] = FPTT_PUT_A(FPTT_GET_A(grad[j]) * (1.0f - value * value));
    }
  }
}
