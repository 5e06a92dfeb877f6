/* The element-wise halves of the recurrent cells with RISC-V vectors: the same operations in the
 * same order as ../cells.c, and so the same bits. Outputs may be the memory of inputs: what is at a
 * place is read before that place is written. */
#include "functions.h"

/* for COLUMNS(j, vl, hidden): groups of columns [j, j + vl) */
#define COLUMNS(j, vl, hidden) \
  (size_t j = 0, vl; j < (hidden) && (vl = __riscv_vsetvl_e32m4((hidden) - j), 1); j += vl)

void FPTT_KERNEL(lstm_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows c_before,
                               fptt_rows gates, fptt_rows c, fptt_rows h) {
  for (size_t row = 0; row < n; row++) {
    const fptt_activation *in = fptt_row(a, row), *before = fptt_row(c_before, row);
    fptt_activation *out = fptt_row(gates, row), *cell = fptt_row(c, row);
    fptt_activation *state = fptt_row(h, row);
    for COLUMNS(j, vl, hidden) {
      fptt_group f = fptt_sigmoid_group(FPTT_GROUP_A(in + hidden + j, vl), vl);
      FPTT_STORE_A(out + hidden + j, f, vl);
      fptt_group new = FPTT_MUL(f, FPTT_GROUP_A(before + j, vl));
      fptt_group i = fptt_sigmoid_group(FPTT_GROUP_A(in + j, vl), vl);
      FPTT_STORE_A(out + j, i, vl);
      fptt_group g = fptt_tanh_group(FPTT_GROUP_A(in + 2 * hidden + j, vl), vl);
      FPTT_STORE_A(out + 2 * hidden + j, g, vl);
      new = FPTT_ADD(new, FPTT_MUL(i, g));
      FPTT_STORE_A(cell + j, new, vl);
      fptt_group o = fptt_sigmoid_group(FPTT_GROUP_A(in + 3 * hidden + j, vl), vl);
      FPTT_STORE_A(out + 3 * hidden + j, o, vl);
      FPTT_STORE_A(state + j, FPTT_MUL(o, fptt_tanh_group(new, vl)), vl);
    }
  }
}

void FPTT_KERNEL(lstm_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows c_before,
                                fptt_rows c, fptt_rows dh, fptt_rows dc, fptt_rows da,
                                fptt_rows dc_before) {
  for (size_t row = 0; row < n; row++) {
    const fptt_activation *in = fptt_row(gates, row), *before = fptt_row(c_before, row);
    const fptt_activation *cell = fptt_row(c, row), *grad_h = fptt_row(dh, row);
    const fptt_activation *grad_c = fptt_row(dc, row);
    fptt_activation *out = fptt_row(da, row), *next = fptt_row(dc_before, row);
    for COLUMNS(j, vl, hidden) {
      fptt_group squashed = fptt_tanh_group(FPTT_GROUP_A(cell + j, vl), vl);
      fptt_group by_h = FPTT_GROUP_A(grad_h + j, vl);
      fptt_group o = FPTT_GROUP_A(in + 3 * hidden + j, vl);
      fptt_group slope = FPTT_MUL(FPTT_MUL(by_h, squashed), fptt_sigmoid_slope(o, vl));
      fptt_group by_c = FPTT_MUL(FPTT_MUL(by_h, o), fptt_tanh_slope(squashed, vl));
      by_c = FPTT_ADD(FPTT_GROUP_A(grad_c + j, vl), by_c);
      FPTT_STORE_A(out + 3 * hidden + j, slope, vl);
      fptt_group f = FPTT_GROUP_A(in + hidden + j, vl);
      slope = FPTT_MUL(by_c, FPTT_GROUP_A(before + j, vl));
      FPTT_STORE_A(out + hidden + j, FPTT_MUL(slope, fptt_sigmoid_slope(f, vl)), vl);
      FPTT_STORE_A(next + j, FPTT_MUL(by_c, f), vl);
      fptt_group i = FPTT_GROUP_A(in + j, vl), g = FPTT_GROUP_A(in + 2 * hidden + j, vl);
      FPTT_STORE_A(out + j, FPTT_MUL(FPTT_MUL(by_c, g), fptt_sigmoid_slope(i, vl)), vl);
      slope = FPTT_MUL(FPTT_MUL(by_c, i), fptt_tanh_slope(g, vl));
      FPTT_STORE_A(out + 2 * hidden + j, slope, vl);
    }
  }
}

void FPTT_KERNEL(gru_forward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                              fptt_rows gates_out, fptt_rows h) {
  for (size_t row = 0; row < n; row++) {
    const fptt_activation *in = fptt_row(gates, row), *before = fptt_row(h_before, row);
    fptt_activation *out = fptt_row(gates_out, row), *state = fptt_row(h, row);
    for COLUMNS(j, vl, hidden) {
      fptt_group q = FPTT_GROUP_A(in + 3 * hidden + j, vl);
      FPTT_STORE_A(out + 3 * hidden + j, q, vl);
      fptt_group reset = fptt_sigmoid_group(FPTT_GROUP_A(in + j, vl), vl);
      FPTT_STORE_A(out + j, reset, vl);
      fptt_group candidate = FPTT_GROUP_A(in + 2 * hidden + j, vl);
      candidate = fptt_tanh_group(FPTT_ADD(candidate, FPTT_MUL(reset, q)), vl);
      FPTT_STORE_A(out + 2 * hidden + j, candidate, vl);
      fptt_group z = fptt_sigmoid_group(FPTT_GROUP_A(in + hidden + j, vl), vl);
      FPTT_STORE_A(out + hidden + j, z, vl);
      fptt_group new = FPTT_MUL(FPTT_F_SUB(1.0f, z), candidate);
      FPTT_STORE_A(state + j, FPTT_ADD(new, FPTT_MUL(z, FPTT_GROUP_A(before + j, vl))), vl);
    }
  }
}

void FPTT_KERNEL(gru_backward)(size_t n, size_t hidden, fptt_rows gates, fptt_rows h_before,
                               fptt_rows dh, fptt_rows da, fptt_rows dh_before) {
  for (size_t row = 0; row < n; row++) {
    const fptt_activation *in = fptt_row(gates, row), *before = fptt_row(h_before, row);
    const fptt_activation *grad = fptt_row(dh, row);
    fptt_activation *out = fptt_row(da, row), *next = fptt_row(dh_before, row);
    for COLUMNS(j, vl, hidden) {
      fptt_group by_h = FPTT_GROUP_A(grad + j, vl);
      fptt_group candidate = FPTT_GROUP_A(in + 2 * hidden + j, vl);
      fptt_group z = FPTT_GROUP_A(in + hidden + j, vl);
      fptt_group by_n = FPTT_MUL(by_h, FPTT_F_SUB(1.0f, z));
      by_n = FPTT_MUL(by_n, fptt_tanh_slope(candidate, vl));
      FPTT_STORE_A(out + 2 * hidden + j, by_n, vl);
      fptt_group by_z = FPTT_SUB(FPTT_GROUP_A(before + j, vl), candidate);
      by_z = FPTT_MUL(FPTT_MUL(by_h, by_z), fptt_sigmoid_slope(z, vl));
      FPTT_STORE_A(out + hidden + j, by_z, vl);
      FPTT_STORE_A(next + j, FPTT_MUL(by_h, z), vl);
      fptt_group reset = FPTT_GROUP_A(in + j, vl), q = FPTT_GROUP_A(in + 3 * hidden + j, vl);
      fptt_group by_r = FPTT_MUL(FPTT_MUL(by_n, q), fptt_sigmoid_slope(reset, vl));
      FPTT_STORE_A(out + j, by_r, vl);
      FPTT_STORE_A(out + 3 * hidden + j, FPTT_MUL(by_n, reset), vl);
    }
  }
}

void FPTT_KERNEL(rnn_forward)(size_t n, size_t hidden, fptt_rows a, fptt_rows h) {
  for (size_t row = 0; row < n; row++) {
    const fptt_activation *in = fptt_row(a, row);
    fptt_activation *out = fptt_row(h, row);
    for COLUMNS(j, vl, hidden) {
      FPTT_STORE_A(out + j, fptt_tanh_group(FPTT_GROUP_A(in + j, vl), vl), vl);
    }
  }
}

void FPTT_KERNEL(rnn_backward)(size_t n, size_t hidden, fptt_rows y, fptt_rows dh, fptt_rows da) {
  for (size_t row = 0; row < n; row++) {
    const fptt_activation *state = fptt_row(y, row), *grad = fptt_row(dh, row);
    fptt_activation *out = fptt_row(da, row);
    for COLUMNS(j, vl, hidden) {
      fptt_group slope = fptt_tanh_slope(FPTT_GROUP_A(state + j, vl), vl);
      FPTT_STORE_A(out + j, FPTT_MUL(FPTT_GROUP_A(grad + j, vl), slope), vl);
    }
  }
}
