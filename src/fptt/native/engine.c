/* Runs operations: finds the rows that each one works on and calls its kernel. */
#include "drive.h"
#include "fptt_math.h"
#include "random.h"

#include <string.h>

/* The kinds of operations that the engine knows. To add one: its entry in fptt/program/opset with this
 * name as `c_symbol`, its name here, its run_ function below, and its kernel in runtime/src/kernels.h;
 * constants reach it through compile.py (`attribute`, `rule`), products count in run_loop. A case in
 * tests/test_native_ops.py and tests/test_op_table.py is demanded by the tests themselves. */
#define FPTT_KIND_LIST(K)                                                                        \
  K(affine) K(affine_sum) K(product) K(weight_gradient) K(bias_gradient) K(lstm_forward) K(lstm_backward)      \
  K(gru_forward) K(gru_backward) K(rnn_forward) K(rnn_backward) K(relu) K(relu_gradient)         \
  K(dropout) K(embedding) K(embedding_gradient) K(fill) K(copy) K(add) K(next_sequence)          \
  K(cross_entropy) K(auxiliary_cross_entropy) K(squared_error) K(update) K(fptt_update)          \
  K(weight_update) K(bias_update) K(fptt_weight_update) K(fptt_bias_update) K(fptt_direction)    \
  K(square_sum) K(clip_factor) K(adam_correction)

/* One operation at work: on these rows of these segments. */
typedef struct {
  fptt_engine *engine;
  const fptt_op *op;
  const fptt_frame *frame;
  const fptt_segment *segment;
  int32_t segments;
} call;

static uint8_t *place(const fptt_operand *operand, const fptt_segment *segment) {
  uint8_t *at = operand->base;
  switch (operand->index) {
    case FPTT_ABSENT: return NULL;
    case FPTT_FIXED: return at;
    case FPTT_WHOLE: return at + segment->row * operand->row_bytes;
    default: return at + segment->slot * operand->slot_bytes + segment->row * operand->row_bytes;
  }
}

static fptt_rows rows_at(const call *c, int operand, const fptt_segment *segment) {
  fptt_rows rows = {place(&c->op->operand[operand], segment),
                    (size_t)c->op->operand[operand].stride};
  return rows;
}

/* for SEGMENTS(c, s): every run of rows */
#define SEGMENTS(c, s) \
  (const fptt_segment *s = (c)->segment, *end = s + (c)->segments; s < end; s++)
#define ROWS(which) rows_at(c, which, s)
#define COUNT ((size_t)s->rows)
#define SIZE(which) ((size_t)c->op->operand[which].length)
#define FIXED(which) ((void *)c->op->operand[which].base)
#define ATTRIBUTE(i) (c->op->attribute[i])
#define KERNEL (c->engine->kernels)

/* -- products -------------------------------------------------------------------------------- */

static fptt_factors factors(const call *c, const fptt_segment *s, int x, int w) {
  const fptt_operand *weights = &c->op->operand[w];
  fptt_factors f = {SIZE(x), ROWS(x), weights->base, (size_t)weights->stride};
  return f;
}

static const fptt_factors no_factors;

/* y = x w^T + bias + start. Weights are [outputs, inputs]; `transposed` ones lie in memory as
 * [inputs, outputs]. */
static void affine(const call *c, const fptt_segment *s, int x, int w, const void *bias,
                   fptt_rows start, fptt_rows y, size_t outputs) {
  const fptt_factors f = factors(c, s, x, w);
  if (c->op->operand[w].transposed) {
    KERNEL->product(COUNT, outputs, f, no_factors, bias, start, y);
  } else {
    KERNEL->product_transposed(COUNT, f.inner, outputs, f.x, f.w, f.w_stride, bias, start, y);
  }
}

static void run_affine(const call *c) {
  enum { X, W, BIAS, START, Y };
  for SEGMENTS(c, s) affine(c, s, X, W, FIXED(BIAS), ROWS(START), ROWS(Y), SIZE(Y));
}

/* y = x w^T + h v^T + bias + start */
static void run_affine_sum(const call *c) {
  enum { X, W, H, V, BIAS, START, Y };
  const int together = c->op->operand[W].transposed && c->op->operand[V].transposed;
  for SEGMENTS(c, s) {
    if (together) {
      KERNEL->product(COUNT, SIZE(Y), factors(c, s, X, W), factors(c, s, H, V), FIXED(BIAS),
                      ROWS(START), ROWS(Y));
    } else {
      affine(c, s, X, W, FIXED(BIAS), ROWS(START), ROWS(Y), SIZE(Y));
      affine(c, s, H, V, NULL, ROWS(Y), ROWS(Y), SIZE(Y));
    }
  }
}

/* dx = dy w + start */
static void run_product(const call *c) {
  enum { DY, W, START, DX };
  for SEGMENTS(c, s) {
    const fptt_factors f = factors(c, s, DY, W);
    if (c->op->operand[W].transposed) {
      KERNEL->product_transposed(COUNT, f.inner, SIZE(DX), f.x, f.w, f.w_stride, NULL, ROWS(START),
                                 ROWS(DX));
    } else {
      KERNEL->product(COUNT, SIZE(DX), f, no_factors, NULL, ROWS(START), ROWS(DX));
    }
  }
}

/* Pairs rows of p and q, segment by segment. */
static void pair(const call *c, int p, int q) {
  fptt_span *span = c->engine->spans;
  for SEGMENTS(c, s) {
    span->p = p < 0 ? NULL : place(&c->op->operand[p], s);
    span->q = place(&c->op->operand[q], s);
    span->rows = COUNT;
    span++;
  }
}

/* A gradient whose lines threads share. */
typedef struct {
  const call *c;
  int start, out;
  size_t p_stride, q_stride;
  const fptt_learned *at; /* for an update; otherwise NULL */
  fptt_step step;
  float *tile;
  uint32_t largest[FPTT_MOST_THREADS];
} shared_gradient;

static void gradient_lines(void *context, int32_t number, int32_t of) {
  shared_gradient *g = context;
  const call *c = g->c;
  const fptt_operand *out = &c->op->operand[g->out];
  size_t lines = (size_t)out->runs;
  size_t first = lines * (size_t)number / (size_t)of;
  size_t last = lines * (size_t)(number + 1) / (size_t)of;
  if (g->at) {
    g->largest[number] = KERNEL->gradient_update(
        c->engine->spans, (size_t)c->segments, first, last, g->p_stride, g->q_stride, g->at,
        &c->op->rule, g->step, g->tile, c->frame->part & 1);
    return;
  }
  KERNEL->gradient(c->engine->spans, (size_t)c->segments, first, last, (size_t)out->length,
                   g->p_stride, g->q_stride, g->start < 0 ? NULL : FIXED(g->start), out->base,
                   (size_t)out->stride);
}

/* Multiply-adds that a thread should have to do, lest waking it costs more than it brings. */
#define WORTH_A_THREAD 200000

static int32_t threads_for(const fptt_engine *engine, double work, int32_t shares) {
  int32_t threads = engine->pool ? engine->pool->threads : 1;
  if ((double)threads * WORTH_A_THREAD > work) threads = (int32_t)(work / WORTH_A_THREAD);
  if (threads > shares) threads = shares;
  return threads > 1 ? threads : 1;
}

/* p or q < 0: none. Answers with the largest |value| of an update. */
static uint32_t gradient(const call *c, int p, int q, int start, int out, const fptt_learned *at,
                         fptt_step step, float *tile) {
  const fptt_operand *g = &c->op->operand[out];
  shared_gradient job = {.c = c,
                         .start = start,
                         .out = out,
                         .p_stride = p < 0 ? 0 : (size_t)c->op->operand[p].stride,
                         .q_stride = (size_t)c->op->operand[q].stride,
                         .at = at,
                         .step = step,
                         .tile = tile};
  uint32_t largest = 0;
  double rows = 0;
  pair(c, p, q);
  for SEGMENTS(c, s) rows += s->rows;
  int32_t threads = threads_for(c->engine, rows * g->runs * g->length, g->runs / 6);
  fptt_pool_run(c->engine->pool, gradient_lines, &job, threads);
  for (int32_t i = 0; at && i < threads; i++) {
    largest = job.largest[i] > largest ? job.largest[i] : largest;
  }
  return largest;
}

static const fptt_step no_step;

static void run_weight_gradient(const call *c) {
  enum { DY, X, START, DW };
  if (c->op->operand[DW].transposed) {
    gradient(c, X, DY, START, DW, NULL, no_step, NULL);
  } else {
    gradient(c, DY, X, START, DW, NULL, no_step, NULL);
  }
}

static void run_bias_gradient(const call *c) {
  enum { DY, START, DB };
  gradient(c, -1, DY, START, DB, NULL, no_step, NULL);
}

/* -- cells and element-wise operations --------------------------------------------------------- */

static void run_lstm_forward(const call *c) {
  enum { A, C_BEFORE, GATES, C, H };
  for SEGMENTS(c, s) {
    KERNEL->lstm_forward(COUNT, SIZE(H), ROWS(A), ROWS(C_BEFORE), ROWS(GATES), ROWS(C), ROWS(H));
  }
}

static void run_lstm_backward(const call *c) {
  enum { GATES, C_BEFORE, C, DH, DC, DA, DC_BEFORE };
  for SEGMENTS(c, s) {
    KERNEL->lstm_backward(COUNT, SIZE(C), ROWS(GATES), ROWS(C_BEFORE), ROWS(C), ROWS(DH), ROWS(DC),
                          ROWS(DA), ROWS(DC_BEFORE));
  }
}

static void run_gru_forward(const call *c) {
  enum { GATES, H_BEFORE, GATES_OUT, H };
  for SEGMENTS(c, s) {
    KERNEL->gru_forward(COUNT, SIZE(H), ROWS(GATES), ROWS(H_BEFORE), ROWS(GATES_OUT), ROWS(H));
  }
}

static void run_gru_backward(const call *c) {
  enum { GATES, H_BEFORE, DH, DA, DH_BEFORE };
  for SEGMENTS(c, s) {
    KERNEL->gru_backward(COUNT, SIZE(DH), ROWS(GATES), ROWS(H_BEFORE), ROWS(DH), ROWS(DA),
                         ROWS(DH_BEFORE));
  }
}

static void run_rnn_forward(const call *c) {
  enum { A, H };
  for SEGMENTS(c, s) KERNEL->rnn_forward(COUNT, SIZE(H), ROWS(A), ROWS(H));
}

static void run_rnn_backward(const call *c) {
  enum { Y, DH, DA };
  for SEGMENTS(c, s) KERNEL->rnn_backward(COUNT, SIZE(DH), ROWS(Y), ROWS(DH), ROWS(DA));
}

static void run_relu(const call *c) {
  enum { X, Y };
  for SEGMENTS(c, s) KERNEL->relu(COUNT, SIZE(X), ROWS(X), ROWS(Y));
}

static void run_relu_gradient(const call *c) {
  enum { Y, DY, START, DX };
  for SEGMENTS(c, s) {
    KERNEL->relu_gradient(COUNT, SIZE(DY), ROWS(Y), ROWS(DY), ROWS(START), ROWS(DX));
  }
}

static void run_dropout(const call *c) {
  enum { X, RANDOM, START, Y };
  enum { P, LAYER };
  double limit = ATTRIBUTE(P) * 4294967296.0;
  uint32_t least = limit >= 4294967295.0 ? 0xFFFFFFFFu : (uint32_t)limit;
  least += (double)least < limit && least != 0xFFFFFFFFu;
  for SEGMENTS(c, s) {
    KERNEL->dropout(COUNT, SIZE(X), ROWS(X), FIXED(RANDOM), ROWS(START), ROWS(Y), least,
                    (float)(1.0 / (1.0 - ATTRIBUTE(P))), (uint32_t)ATTRIBUTE(LAYER),
                    (uint32_t)s->row, (uint32_t)(c->frame->begin + s->slot));
  }
}

static void run_embedding(const call *c) {
  enum { TABLE, TOKEN, Y };
  for SEGMENTS(c, s) {
    KERNEL->embedding(COUNT, SIZE(Y), FIXED(TABLE), ROWS(TOKEN).data, ROWS(Y));
  }
}

static void run_embedding_gradient(const call *c) {
  enum { TOKEN, DY, START, DW };
  for SEGMENTS(c, s) {
    KERNEL->embedding_gradient(COUNT, SIZE(DY), ROWS(TOKEN).data, ROWS(DY), FIXED(DW));
  }
}

static void run_add(const call *c) {
  enum { X, START, Y };
  for SEGMENTS(c, s) KERNEL->add(COUNT, SIZE(X), ROWS(X), ROWS(START), ROWS(Y));
}

/* -- movement ---------------------------------------------------------------------------------- */

/* The value comes as the bits of one item of the buffer. */
static void run_fill(const call *c) {
  enum { Y };
  const fptt_operand *y = &c->op->operand[Y];
  const uint32_t bits = (uint32_t)ATTRIBUTE(0);
  for SEGMENTS(c, s) {
    size_t lines = y->index == FPTT_FIXED ? (size_t)y->runs : COUNT;
    for (size_t line = 0; line < lines; line++) {
      uint8_t *to = place(y, s) + line * (size_t)y->stride * (size_t)y->item_bytes;
      if (bits == 0) {
        memset(to, 0, SIZE(Y) * (size_t)y->item_bytes);
        continue;
      }
      for (size_t j = 0; j < SIZE(Y); j++) {
        if (y->item_bytes == 4) memcpy(to + 4 * j, &bits, 4);
        if (y->item_bytes == 2) memcpy(to + 2 * j, &(uint16_t){(uint16_t)bits}, 2);
      }
    }
  }
}

static void run_copy(const call *c) {
  enum { X, Y };
  const fptt_operand *x = &c->op->operand[X], *y = &c->op->operand[Y];
  for SEGMENTS(c, s) {
    size_t lines = y->index == FPTT_FIXED ? (size_t)y->runs : COUNT;
    for (size_t line = 0; line < lines; line++) {
      memmove(place(y, s) + line * (size_t)y->stride * (size_t)y->item_bytes,
              place(x, s) + line * (size_t)x->stride * (size_t)x->item_bytes,
              SIZE(Y) * (size_t)y->item_bytes);
    }
  }
}

static void run_next_sequence(const call *c) {
  enum { RANDOM, NEXT };
  uint32_t *from = FIXED(RANDOM), *to = FIXED(NEXT);
  to[0] = from[0];
  to[1] = from[1] + 1;
}

/* -- losses ------------------------------------------------------------------------------------ */

/* One over the number of rows that have a target, times `width`. */
static float share_of(const call *c, int target, int is_label, size_t width) {
  size_t counted = 0;
  for SEGMENTS(c, s) {
    const int32_t *label = ROWS(target).data;
    const float *wanted = ROWS(target).data;
    for (size_t r = 0; r < COUNT; r++) {
      counted += is_label ? label[r] >= 0 : wanted[r * width] == wanted[r * width];
    }
  }
  counted *= width;
  return 1.0f / (float)(counted ? counted : 1);
}

static void run_cross_entropy(const call *c) {
  enum { LOGITS, TARGET, D, LOSS };
  float share = share_of(c, TARGET, 1, 1), loss = 0.0f;
  for SEGMENTS(c, s) {
    loss += KERNEL->cross_entropy(COUNT, SIZE(LOGITS), ROWS(LOGITS), ROWS(TARGET).data, share,
                                  ROWS(D));
  }
  *(float *)FIXED(LOSS) = loss;
}

static void run_auxiliary_cross_entropy(const call *c) {
  enum { LOGITS, TARGET, FRACTION, Q, D, LOSS };
  enum { RATE, PER_PART };
  float share = share_of(c, TARGET, 1, 1), loss = 0.0f;
  const fptt_operand *q = &c->op->operand[Q];
  size_t part = ATTRIBUTE(PER_PART) != 0.0 ? (size_t)c->frame->part : 0;
  uint8_t *known = q->base + part * SIZE(Q) * SIZE(Q) * (size_t)q->item_bytes;
  for SEGMENTS(c, s) {
    loss += KERNEL->auxiliary_cross_entropy(COUNT, SIZE(LOGITS), ROWS(LOGITS), ROWS(TARGET).data,
                                            ROWS(FRACTION).data, known, share, ROWS(D));
  }
  /* Q moves only now: no row must see what Q learns from another of the same part */
  for SEGMENTS(c, s) {
    KERNEL->auxiliary_learn(COUNT, SIZE(LOGITS), ROWS(LOGITS), ROWS(TARGET).data,
                            ROWS(FRACTION).data, known, (float)ATTRIBUTE(RATE),
                            ATTRIBUTE(PER_PART) != 0.0);
  }
  *(float *)FIXED(LOSS) = loss;
}

static void run_squared_error(const call *c) {
  enum { Y, TARGET, D, LOSS };
  float share = share_of(c, TARGET, 0, SIZE(Y)), loss = 0.0f;
  for SEGMENTS(c, s) {
    loss += KERNEL->squared_error(COUNT, SIZE(Y), ROWS(Y), ROWS(TARGET).data, share, ROWS(D));
  }
  *(float *)FIXED(LOSS) = loss;
}

/* -- updates ----------------------------------------------------------------------------------- */

static void note(const call *c, uint32_t bits) {
  if (bits > c->engine->largest) c->engine->largest = bits;
}

/* What follows the gradient (or its factors) in the operands of every update. */
enum { THETA, AFTER_THETA };

static fptt_step step_of(const call *c, int lr) {
  enum { LR, FACTOR, FIRST, SECOND, CORRECTION, NOISE };
  const float *factor = FIXED(lr + FACTOR), *correction = FIXED(lr + CORRECTION);
  const uint32_t *noise = FIXED(lr + NOISE);
  fptt_step step = {*(const float *)FIXED(lr), factor ? *factor : 1.0f,
                    correction ? correction[0] : 1.0f, correction ? correction[1] : 1.0f, {0}};
  for (uint32_t i = 0; noise && i < 3; i++) {
    step.key[i] = fptt_rounding_key(noise[0], noise[1], c->op->tensor, i);
  }
  return step;
}

static fptt_learned learned_of(const call *c, int theta, int lambda, int lr) {
  enum { FIRST = 2, SECOND = 3 };
  const fptt_operand *at = &c->op->operand[theta];
  fptt_learned learned = {at->base,
                          lambda < 0 ? NULL : FIXED(lambda),
                          lambda < 0 ? NULL : FIXED(lambda + 1),
                          FIXED(lr + FIRST),
                          FIXED(lr + SECOND),
                          (size_t)at->runs,
                          (size_t)at->length,
                          (size_t)at->stride,
                          c->op->first_element,
                          at->transposed ? 1u : FPTT_ROW_DISTANCE,
                          at->transposed ? FPTT_ROW_DISTANCE : 1u};
  return learned;
}

static void run_update(const call *c) {
  enum { G = 1, LR };
  fptt_learned at = learned_of(c, 0, -1, LR);
  note(c, KERNEL->update(&at, FIXED(G), &c->op->rule, step_of(c, LR)));
}

static void run_fptt_update(const call *c) {
  enum { G = 1, LAMBDA, MEAN, LR };
  fptt_learned at = learned_of(c, 0, LAMBDA, LR);
  note(c, KERNEL->update(&at, FIXED(G), &c->op->rule, step_of(c, LR)));
}

/* dy and x follow theta in a weight's update, dy alone in a bias's. */
static void gradient_update(const call *c, int has_x, int wrapped, int tile) {
  enum { DY = 1, X = 2 };
  int after = has_x ? 3 : 2, lr = wrapped ? after + 2 : after;
  int p = -1, q = DY;
  fptt_learned at = learned_of(c, 0, wrapped ? after : -1, lr);
  if (has_x) {
    p = c->op->operand[0].transposed ? X : DY;
    q = c->op->operand[0].transposed ? DY : X;
  }
  note(c, gradient(c, p, q, -1, 0, &at, step_of(c, lr), has_x ? FIXED(tile) : NULL));
}

static void run_weight_update(const call *c) {
  enum { AT, DY, X, LR, FACTOR, FIRST, SECOND, CORRECTION, NOISE, AT_OUT, FIRST_OUT, SECOND_OUT, TILE };
  gradient_update(c, 1, 0, TILE);
}

static void run_bias_update(const call *c) { gradient_update(c, 0, 0, 0); }

static void run_fptt_weight_update(const call *c) {
  enum {
    AT, DY, X, LAMBDA, MEAN, LR, FACTOR, FIRST, SECOND, CORRECTION, NOISE,
    AT_OUT, LAMBDA_OUT, MEAN_OUT, FIRST_OUT, SECOND_OUT, TILE
  };
  gradient_update(c, 1, 1, TILE);
}

static void run_fptt_bias_update(const call *c) { gradient_update(c, 0, 1, 0); }

static void run_fptt_direction(const call *c) {
  enum { AT, G, LAMBDA, MEAN, D };
  const fptt_operand *d = &c->op->operand[D];
  const size_t line_bytes = (size_t)d->stride * (size_t)d->item_bytes;
  for (size_t line = 0; line < (size_t)d->runs; line++) {
    const size_t at = line * line_bytes;
    KERNEL->direction(SIZE(D), c->op->operand[AT].base + at, c->op->operand[G].base + at,
                      c->op->operand[LAMBDA].base + at, c->op->operand[MEAN].base + at,
                      d->base + at, c->op->rule.alpha, c->op->rule.pull);
  }
}

static void run_square_sum(const call *c) {
  enum { D, START, TOTAL };
  const fptt_operand *d = &c->op->operand[D];
  const float *start = FIXED(START);
  size_t lines = (size_t)d->runs, length = (size_t)d->length;
  if (d->length == d->stride) length *= lines, lines = 1; /* no gaps: one run */
  float total = 0.0f;
  for (size_t line = 0; line < lines; line++) {
    total += KERNEL->square_sum(length, d->base + line * (size_t)d->stride * (size_t)d->item_bytes);
  }
  *(float *)FIXED(TOTAL) = start ? *start + total : total;
}

static void run_clip_factor(const call *c) {
  enum { TOTAL, FACTOR };
  float factor = (float)ATTRIBUTE(0) / (fptt_sqrt(*(const float *)FIXED(TOTAL)) + 1e-6f);
  *(float *)FIXED(FACTOR) = factor > 1.0f ? 1.0f : factor; /* a NaN stays */
}

static void run_adam_correction(const call *c) {
  enum { BEFORE, AFTER };
  const float *from = FIXED(BEFORE);
  float *to = FIXED(AFTER);
  const fptt_update_rule *rule = &c->op->rule;
  to[0] = rule->beta1 * from[0] + rule->one_minus_beta1;
  to[1] = rule->beta2 * from[1] + rule->one_minus_beta2;
}

/* -- the loop ---------------------------------------------------------------------------------- */

typedef void (*runner)(const call *c);

enum {
#define FPTT_KIND_NUMBER(name) KIND_##name,
  FPTT_KIND_LIST(FPTT_KIND_NUMBER)
#undef FPTT_KIND_NUMBER
  KINDS
};

static const runner runners[] = {
#define FPTT_KIND_RUNNER(name) run_##name,
    FPTT_KIND_LIST(FPTT_KIND_RUNNER)
#undef FPTT_KIND_RUNNER
};

const char *fptt_kind_name(int32_t kind) {
  static const char *const names[] = {
#define FPTT_KIND_NAME(name) #name,
      FPTT_KIND_LIST(FPTT_KIND_NAME)
#undef FPTT_KIND_NAME
  };
  return kind >= 0 && kind < KINDS ? names[kind] : NULL;
}

/* Which rows an operation outside loops works on. All slots at once count as one run where they lie
 * without gaps and nothing depends on the step. */
static int32_t find_segments(fptt_engine *engine, const fptt_op *op, const fptt_frame *frame) {
  fptt_segment *segment = engine->segments;
  const int32_t *rows = frame->rows, steps = frame->steps;
  /* an operation on rows stands at each row's last step, and dropout must know which */
  int32_t mode = op->kind == KIND_dropout && op->mode == FPTT_WHOLE ? FPTT_LAST : op->mode;
  switch (mode) {
    case FPTT_ALL:
      if (rows[steps - 1] == engine->batch && op->kind != KIND_dropout) {
        *segment = (fptt_segment){0, 0, steps * engine->batch};
        return 1;
      }
      for (int32_t t = 0; t < steps; t++) segment[t] = (fptt_segment){t, 0, rows[t]};
      return steps;
    case FPTT_LAST: {
      int32_t count = 0, row = 0;
      for (int32_t t = steps - 1; t >= 0; t--) {
        if (rows[t] == row) continue;
        segment[count++] = (fptt_segment){t, row, rows[t] - row};
        row = rows[t];
      }
      return count;
    }
    default: *segment = (fptt_segment){0, 0, rows[0]}; return 1;
  }
}

uint32_t fptt_largest_of(const fptt_engine *engine, const fptt_operand *operand,
                         const fptt_segment *segment) {
  const fptt_kernels *kernels = engine->kernels;
  uint32_t (*look)(size_t n, const void *values) =
      operand->item_bytes == 4 ? kernels->largest_float : kernels->largest_bf16;
  size_t lines = operand->index == FPTT_FIXED ? (size_t)operand->runs : (size_t)segment->rows;
  size_t length = (size_t)operand->length, stride = (size_t)operand->stride;
  uint32_t largest = 0;
  if (length == stride) length *= lines, lines = 1; /* no gaps: one run */
  for (size_t line = 0; line < lines; line++) {
    uint32_t bits = look(length, place(operand, segment) +
                                     line * stride * (size_t)operand->item_bytes);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

fptt_factors_bound fptt_largest_watched(fptt_engine *engine, int32_t routine,
                                        const fptt_frame *frame) {
  const fptt_routine *wanted = &engine->routine[routine];
  fptt_factors_bound bound = {0, 0};
  for (int32_t b = wanted->first; b < wanted->first + wanted->count; b++) {
    const fptt_op *op = engine->ops + engine->blocks[b].first;
    for (int32_t i = 0; i < engine->blocks[b].count; i++, op++) {
      int32_t segments = find_segments(engine, op, frame);
      for (int32_t j = 0; j < FPTT_MOST_OPERANDS; j++) {
        if (!op->operand[j].watched) continue;
        uint32_t *largest = op->operand[j].watched == 1 ? &bound.gradients : &bound.inputs;
        for (int32_t s = 0; s < (op->operand[j].index == FPTT_FIXED ? 1 : segments); s++) {
          uint32_t bits = fptt_largest_of(engine, &op->operand[j], &engine->segments[s]);
          if (bits > *largest) *largest = bits;
        }
      }
    }
  }
  return bound;
}

static void run_once(fptt_engine *engine, const fptt_op *op, const fptt_frame *frame) {
  call c = {engine, op, frame, engine->segments, find_segments(engine, op, frame)};
  runners[op->kind](&c);
}

/* A block of operations in a loop over the steps. */
typedef struct {
  fptt_engine *engine;
  const fptt_block *block;
  const fptt_frame *frame;
  int32_t low, high; /* steps */
} loop;

/* All steps of the loop, for one of several shares of the rows. */
static void run_rows(void *context, int32_t number, int32_t of) {
  const loop *l = context;
  const fptt_op *ops = l->engine->ops + l->block->first;
  int32_t first = (int32_t)((int64_t)l->frame->rows[0] * number / of);
  int32_t last = (int32_t)((int64_t)l->frame->rows[0] * (number + 1) / of);
  for (int32_t i = l->low; i < l->high; i++) {
    int32_t t = l->block->turn > 0 ? i : l->high - 1 - (i - l->low);
    int32_t end = last < l->frame->rows[t] ? last : l->frame->rows[t];
    const fptt_segment segment = {t, first, end - first};
    if (segment.rows <= 0) continue;
    for (int32_t k = 0; k < l->block->count; k++) {
      if (ops[k].after_first && t == 0) continue;
      call c = {l->engine, ops + k, l->frame, &segment, 1};
      runners[ops[k].kind](&c);
    }
  }
}

/* Rows that make a share: with fewer, a product takes as long as with these, because the weights
 * have to come from the cache all the same. */
#define ROWS_OF_A_SHARE 4

static void run_loop(loop *l) {
  const fptt_op *ops = l->engine->ops + l->block->first;
  double work = 0; /* multiply-adds of a row and step: weights that are read */
  for (int32_t k = 0; k < l->block->count; k++) {
    if (ops[k].kind == KIND_affine || ops[k].kind == KIND_product ||
        ops[k].kind == KIND_affine_sum) {
      work += (double)ops[k].operand[1].runs * ops[k].operand[1].length;
    }
    if (ops[k].kind == KIND_affine_sum) {
      work += (double)ops[k].operand[3].runs * ops[k].operand[3].length;
    }
  }
  work *= (double)l->frame->rows[0] * (l->high - l->low);
  int32_t threads = l->block->by_rows
                        ? threads_for(l->engine, work, l->frame->rows[0] / ROWS_OF_A_SHARE)
                        : 1;
  fptt_pool_run(l->engine->pool, run_rows, l, threads);
}

fptt_status fptt_run(fptt_engine *engine, int32_t routine, const fptt_frame *frame, int32_t step) {
  if (routine < 0 || routine >= FPTT_ROUTINES) return FPTT_BAD_PROGRAM;
  const fptt_routine *wanted = &engine->routine[routine];
  for (int32_t b = wanted->first; b < wanted->first + wanted->count; b++) {
    const fptt_block *block = &engine->blocks[b];
    if (block->turn == 0) {
      const fptt_op *ops = engine->ops + block->first;
      for (int32_t i = 0; i < block->count; i++) run_once(engine, ops + i, frame);
      continue;
    }
    loop l = {engine, block, frame, step < 0 ? 0 : step, step < 0 ? frame->steps : step + 1};
    run_loop(&l);
  }
  return FPTT_OK;
}
