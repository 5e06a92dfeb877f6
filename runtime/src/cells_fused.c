/* cells.c for processors that compute one number at a time and have a fused multiply-add (see
 * fptt_fused.h): the same kernels in the fewest instructions. What differs: products that several
 * formulas share are computed once, x (1 - x) is fma(-x, x, x), and every array has a pointer of
 * its own, in loops with so few of them that they stay in registers. */
#include "fptt_fused.h"
#include "target.h"

/* x (1 - x), times factor */
FPTT_INLINE float times_rest(float factor, float x) { return fptt_fma(-factor, x, factor); }

void FPTT_KERNEL(lstm_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows c_before,
                               fptt_rows gates, fptt_rows c, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in_i = fptt_row(a, r), *in_f = in_i + hidden, *in_g = in_f + hidden;
    const fptt_activation *in_o = in_g + hidden, *before = fptt_row(c_before, r);
    fptt_activation *out_i = fptt_row(gates, r), *out_f = out_i + hidden, *out_g = out_f + hidden;
    fptt_activation *out_o = out_g + hidden, *cell = fptt_row(c, r), *state = fptt_row(h, r);
    for (size_t j = 0; j < hidden; j++) {
      float i = fptt_sigmoid_fused(FPTT_GET_A(in_i[j]));
      float g = fptt_tanh_fused(FPTT_GET_A(in_g[j]));
      float f = fptt_sigmoid_fused(FPTT_GET_A(in_f[j]));
      float new = fptt_fma(f, FPTT_GET_A(before[j]), i * g);
      out_i[j] = FPTT_PUT_A(i);
      out_g[j] = FPTT_PUT_A(g);
      out_f[j] = FPTT_PUT_A(f);
      cell[j] = FPTT_PUT_A(new);
    }
    for (size_t j = 0; j < hidden; j++) {
      float o = fptt_sigmoid_fused(FPTT_GET_A(in_o[j]));
      float squashed = fptt_tanh_fused(FPTT_GET_A(cell[j]));
      out_o[j] = FPTT_PUT_A(o);
      state[j] = FPTT_PUT_A(o * squashed);
    }
  }
}

void FPTT_KERNEL(lstm_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows c_before,
                                fptt_rows c, fptt_rows dh, fptt_rows dc, fptt_rows da,
                                fptt_rows dc_before) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in_i = fptt_row(gates, r), *in_f = in_i + hidden, *in_g = in_f + hidden;
    const fptt_activation *in_o = in_g + hidden, *before = fptt_row(c_before, r);
    const fptt_activation *cell = fptt_row(c, r), *grad_h = fptt_row(dh, r);
    const fptt_activation *grad_c = fptt_row(dc, r);
    fptt_activation *out_i = fptt_row(da, r), *out_f = out_i + hidden, *out_g = out_f + hidden;
    fptt_activation *out_o = out_g + hidden, *next = fptt_row(dc_before, r);
    for (size_t j = 0; j < hidden; j++) {
      float squashed = fptt_tanh_fused(FPTT_GET_A(cell[j])), o = FPTT_GET_A(in_o[j]);
      float by_o = FPTT_GET_A(grad_h[j]) * o;
      float by_c = fptt_fma(by_o, fptt_fma(-squashed, squashed, 1.0f), FPTT_GET_A(grad_c[j]));
      float i = FPTT_GET_A(in_i[j]), f = FPTT_GET_A(in_f[j]), g = FPTT_GET_A(in_g[j]);
      float by_g = by_c * i, by_i = by_g * g, kept = by_c * f;
      float by_f = kept * FPTT_GET_A(before[j]);
      out_o[j] = FPTT_PUT_A(times_rest(by_o * squashed, o));
      out_i[j] = FPTT_PUT_A(times_rest(by_i, i));
      out_g[j] = FPTT_PUT_A(fptt_fma(-by_i, g, by_g));
      out_f[j] = FPTT_PUT_A(times_rest(by_f, f));
      next[j] = FPTT_PUT_A(kept);
    }
  }
}

void FPTT_KERNEL(gru_forward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                              fptt_rows gates_out, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in_r = fptt_row(gates, r), *in_z = in_r + hidden, *in_n = in_z + hidden;
    const fptt_activation *in_q = in_n + hidden, *before = fptt_row(h_before, r);
    fptt_activation *out_r = fptt_row(gates_out, r), *out_z = out_r + hidden;
    fptt_activation *out_n = out_z + hidden, *out_q = out_n + hidden, *state = fptt_row(h, r);
    for (size_t j = 0; j < hidden; j++) {
      float reset = fptt_sigmoid_fused(FPTT_GET_A(in_r[j]));
      float z = fptt_sigmoid_fused(FPTT_GET_A(in_z[j]));
      float q = FPTT_GET_A(in_q[j]);
      float candidate = fptt_tanh_fused(fptt_fma(reset, q, FPTT_GET_A(in_n[j])));
      float new = fptt_fma(z, FPTT_GET_A(before[j]) - candidate, candidate);
      out_r[j] = FPTT_PUT_A(reset);
      out_z[j] = FPTT_PUT_A(z);
      out_n[j] = FPTT_PUT_A(candidate);
      out_q[j] = FPTT_PUT_A(q);
      state[j] = FPTT_PUT_A(new);
    }
  }
}

void FPTT_KERNEL(gru_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                               fptt_rows dh, fptt_rows da, fptt_rows dh_before) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in_r = fptt_row(gates, r), *in_z = in_r + hidden, *in_n = in_z + hidden;
    const fptt_activation *in_q = in_n + hidden, *before = fptt_row(h_before, r);
    const fptt_activation *grad = fptt_row(dh, r);
    fptt_activation *out_r = fptt_row(da, r), *out_z = out_r + hidden, *out_n = out_z + hidden;
    fptt_activation *out_q = out_n + hidden, *next = fptt_row(dh_before, r);
    for (size_t j = 0; j < hidden; j++) {
      float z = FPTT_GET_A(in_z[j]), candidate = FPTT_GET_A(in_n[j]);
      float by_h = FPTT_GET_A(grad[j]), kept = by_h * z;
      float reset = FPTT_GET_A(in_r[j]), q = FPTT_GET_A(in_q[j]);
      float by_n = times_rest(by_h, z) * fptt_fma(-candidate, candidate, 1.0f);
      float by_q = by_n * reset;
      float by_z = times_rest(kept, z) * (FPTT_GET_A(before[j]) - candidate);
      out_r[j] = FPTT_PUT_A(times_rest(by_q * q, reset));
      out_z[j] = FPTT_PUT_A(by_z);
      out_n[j] = FPTT_PUT_A(by_n);
      out_q[j] = FPTT_PUT_A(by_q);
      next[j] = FPTT_PUT_A(kept);
    }
  }
}

void FPTT_KERNEL(rnn_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows h) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *in = fptt_row(a, r);
    fptt_activation *out = fptt_row(h, r);
    for (size_t j = 0; j < hidden; j++) {
      out[j] = FPTT_PUT_A(fptt_tanh_fused(FPTT_GET_A(in[j])));
    }
  }
}

void FPTT_KERNEL(rnn_backward)(size_t n, size_t hidden, fptt_rows y, fptt_rows dh, fptt_rows da) {
  for (size_t r = 0; r < n; r++) {
    const fptt_activation *state = fptt_row(y, r), *grad = fptt_row(dh, r);
    fptt_activation *out = fptt_row(da, r);
    for (size_t j = 0; j < hidden; j++) {
      float value = FPTT_GET_A(state[j]);
      out[j] = FPTT_PUT_A(FPTT_GET_A(grad[j]) * fptt_fma(-value, value, 1.0f));
    }
  }
}
