/* Drives a generated model through the parts of its sequences. The host's drive.c does the same for
 * batches that lie in memory as a whole. */
#include "fptt_learner.h"

#include <string.h>

#include "fptt_kernels.h"
#include "fptt_math.h"

const uint8_t FPTT_TYPES = 1;

#define BITS_OF_INF 0x7F800000u

/* Below these no update can overflow; see drive.c. */
#define LEARNED_LIMIT 1e12f
#define GRADIENT_LIMIT 1e18f
#define RATE_LIMIT 1e3f

static uint32_t size_bits(float value) { return fptt_bits(value) & 0x7FFFFFFFu; }

static uint16_t narrow(float value) {
  uint32_t bits = fptt_bits(value);
  if ((bits & 0x7FFFFFFFu) > BITS_OF_INF) return (uint16_t)((bits >> 16) | 0x0040u);
  return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static float read_float(const fptt_learner *l, uint32_t at) {
  float value;
  memcpy(&value, l->arena + at, sizeof value);
  return value;
}

/* The first step of part p: floor(p T / K). */
static uint32_t first_step(const fptt_model *model, uint32_t part) {
  return (uint32_t)((uint64_t)part * model->steps / model->parts);
}

/* Sets `at` to the part that begins at, or goes on at, the present position; nothing observed. */
static void find_part(fptt_learner *l) {
  /* the last part p with floor(p T / K) <= position */
  const uint64_t ends = ((uint64_t)l->progress.position + 1) * l->model->parts;
  const uint32_t part = (uint32_t)((ends - 1) / l->model->steps);
  l->at = (fptt_moment){part, first_step(l->model, part), 0, 0};
  l->targets = 0;
}

static fptt_moment all_steps(const fptt_learner *l) {
  fptt_moment at = l->at;
  at.low = 0;
  return at;
}

static void put_numbers(uint8_t *to, const float *from, size_t count, int bfloat16) {
  if (!bfloat16) {
    memcpy(to, from, count * sizeof(float));
    return;
  }
  for (size_t i = 0; i < count; i++) {
    uint16_t bits = narrow(from[i]);
    memcpy(to + 2 * i, &bits, sizeof bits);
  }
}

static void forget(fptt_learner *l) {
  l->progress = (fptt_progress){0, 0, 0};
  l->loss = fptt_float(0x7FC00000u);
  l->fresh = 1;
  memset(l->outputs, 0, (size_t)l->model->batch * l->model->output.width * sizeof(float));
  l->model->reset(l->arena, (fptt_moment){0, 0, 0, 1});
  find_part(l);
}

fptt_status fptt_init(fptt_learner *learner, const fptt_model *model, void *arena, size_t bytes,
                      float *outputs) {
  if (bytes < model->arena_bytes) return FPTT_ARENA_TOO_SMALL;
  if ((uintptr_t)arena % 16 != 0) return FPTT_UNALIGNED;
  *learner = (fptt_learner){.model = model, .arena = arena, .outputs = outputs, .learning = 1};
  learner->loss_limit = model->loss_limit;
  fptt_rollback(learner);
  return FPTT_OK;
}

void fptt_rollback(fptt_learner *l) {
  memset(l->arena, 0, l->model->arena_bytes);
  l->model->load(l->arena, (fptt_moment){0, 0, 0, 1});
  l->model->start(l->arena, (fptt_moment){0, 0, 0, 1});
  l->largest = l->model->largest_learned(l->arena);
  forget(l);
}

static void take_outputs(fptt_learner *l, uint32_t t) {
  const fptt_place *from = &l->model->output;
  const uint8_t *at = l->arena + from->at + t * from->step_bytes;
  const uint32_t count = l->model->batch * from->width;
  fptt_moment step = l->at;
  step.low = t;
  step.high = t + 1;
  l->model->readout(l->arena, step);
  if (!from->bfloat16) {
    memcpy(l->outputs, at, count * sizeof(float));
  } else {
    for (uint32_t i = 0; i < count; i++) {
      uint16_t bits;
      memcpy(&bits, at + 2 * i, sizeof bits);
      l->outputs[i] = fptt_float((uint32_t)bits << 16);
    }
  }
  l->fresh = 1;
}

void fptt_begin_sequence(fptt_learner *l) {
  if (!l->fresh && l->at.high > 0) take_outputs(l, l->at.high - 1); /* for fptt_predict */
  l->progress.position = 0;
  l->progress.started = 0;
  find_part(l);
}

static int bad_labels(const fptt_model *model, const int32_t *label) {
  for (uint32_t r = 0; r < model->batch; r++) {
    if (label[r] >= (int32_t)model->output.width) return 1;
  }
  return 0;
}

static int bad_tokens(const fptt_model *model, const int32_t *token) {
  for (uint32_t r = 0; r < model->batch; r++) {
    if (token[r] < 0 || token[r] >= (int32_t)model->tokens) return 1;
  }
  return 0;
}

/* Whether any row has a target. */
static int any_target(const fptt_model *model, const void *target) {
  for (uint32_t r = 0; r < model->batch; r++) {
    const float *numbers = target;
    const int32_t *labels = target;
    if (model->target_is_label ? labels[r] >= 0
                               : numbers[r * model->output.width] == numbers[r * model->output.width]) {
      return 1;
    }
  }
  return 0;
}

/* Writes the targets of step t; without any, those that count for nothing. */
static void put_targets(fptt_learner *l, uint32_t t, const void *target) {
  const fptt_model *model = l->model;
  const uint32_t count = model->batch * model->target.width;
  uint8_t *to = l->arena + model->target.at + t * model->target.step_bytes;
  if (target) {
    memcpy(to, target, 4 * (size_t)count);
    return;
  }
  const uint32_t none = model->target_is_label ? 0xFFFFFFFFu : 0x7FC00000u;
  for (uint32_t i = 0; i < count; i++) memcpy(to + 4 * i, &none, sizeof none);
}

static int update_is_safe(const fptt_learner *l) {
  if (l->model->cautious || l->largest >= size_bits(LEARNED_LIMIT) ||
      size_bits(read_float(l, l->model->lr_at)) >= size_bits(RATE_LIMIT)) {
    return 0;
  }
  const fptt_watched seen = l->model->watch(l->arena, all_steps(l));
  const float input = fptt_float(seen.input), rows = (float)(l->at.high * l->model->batch);
  /* a sum over the rows of gradient times input, or of gradients; of a NaN the answer is no */
  return fptt_float(seen.gradient) * (input > 1.0f ? input : 1.0f) * rows < GRADIENT_LIMIT &&
         seen.input < BITS_OF_INF;
}

static fptt_status stop(fptt_learner *l, fptt_status why) {
  l->learning = 0;
  l->stopped = why;
  return why;
}

static fptt_status learn(fptt_learner *l, float fraction) {
  const fptt_model *model = l->model;
  const fptt_moment at = all_steps(l);
  if (model->fraction_at != UINT32_MAX) {
    for (uint32_t r = 0; r < model->batch; r++) {
      memcpy(l->arena + model->fraction_at + 4 * r, &fraction, sizeof fraction);
    }
  }
  model->loss(l->arena, at);
  l->loss = read_float(l, model->loss_at);
  if (size_bits(l->loss) >= BITS_OF_INF) return stop(l, FPTT_LOSS_NOT_FINITE);
  if (l->loss > l->loss_limit) return stop(l, FPTT_LOSS_RUNAWAY);
  model->backward(l->arena, at);
  if (!update_is_safe(l)) return stop(l, FPTT_UPDATE_NOT_SAFE);
  model->accept(l->arena, at);
  l->largest = model->update(l->arena, at);
  l->progress.updates++;
  return FPTT_OK;
}

/* The part in flight is over: learns from it, and carries the state on. */
static fptt_status finish(fptt_learner *l, float fraction) {
  fptt_status status = FPTT_OK;
  if (l->targets && l->learning) status = learn(l, fraction);
  l->model->carry(l->arena, all_steps(l));
  if (l->model->largest_carried(l->arena) >= BITS_OF_INF) {
    l->model->reset(l->arena, all_steps(l));
    if (status == FPTT_OK) status = stop(l, FPTT_STATE_NOT_FINITE);
  }
  return status;
}

fptt_status fptt_observe(fptt_learner *l, const void *x, const void *target) {
  const fptt_model *model = l->model;
  const uint32_t t = l->at.high;
  fptt_status status = FPTT_OK;
  if (model->input_is_token && bad_tokens(model, x)) return FPTT_BAD_INPUT;
  if (target && model->target_is_label && bad_labels(model, target)) return FPTT_BAD_INPUT;
  if (!l->progress.started) model->begin_sequence(l->arena, all_steps(l));
  /* an endless stream counts its steps from 0 again; dropout must not repeat its masks */
  if (l->progress.position == 0) model->next_sequence(l->arena, all_steps(l));
  l->progress.started = 1;
  uint8_t *to = l->arena + model->input.at + t * model->input.step_bytes;
  if (model->input_is_token) {
    memcpy(to, x, model->batch * sizeof(int32_t));
  } else {
    put_numbers(to, x, (size_t)model->batch * model->input.width, model->input.bfloat16);
  }
  const uint32_t end = first_step(model, l->at.part + 1) - l->at.begin;
  const int last = t + 1 == end;
  l->at.low = t;
  l->at.high = t + 1;
  l->fresh = 0;
  model->forward(l->arena, l->at);
  if (model->every_step) {
    put_targets(l, t, target);
    if (target && any_target(model, target)) l->targets = 1;
  } else {
    /* the part may end with any step (fptt_end_sequence): the last one given is what counts */
    put_targets(l, 0, target);
    l->targets = target && any_target(model, target);
  }
  l->progress.position = (l->progress.position + 1) % model->steps;
  if (last) {
    if (l->targets && l->learning) take_outputs(l, t);
    status = finish(l, (float)(l->at.part + 1) / (float)model->parts);
    if (!l->fresh) take_outputs(l, t);
    find_part(l);
  }
  return status;
}

fptt_status fptt_end_sequence(fptt_learner *l) {
  fptt_status status = FPTT_OK;
  if (l->at.high > 0) {
    take_outputs(l, l->at.high - 1);
    status = finish(l, 1.0f);
  }
  fptt_begin_sequence(l);
  return status;
}

void fptt_predict(fptt_learner *l, float *out) {
  if (!l->fresh) take_outputs(l, l->at.high - 1);
  memcpy(out, l->outputs, (size_t)l->model->batch * l->model->output.width * sizeof(float));
}

void fptt_learning(fptt_learner *l, int on) {
  l->learning = on != 0;
  if (on) l->stopped = FPTT_OK;
}

void fptt_end_epoch(fptt_learner *l) {
  l->model->end_epoch(l->arena, all_steps(l));
  l->largest = l->model->largest_learned(l->arena);
}

void fptt_set_rate(fptt_learner *l, float lr) {
  memcpy(l->arena + l->model->lr_at, &lr, sizeof lr);
}

size_t fptt_pieces(const fptt_model *model, fptt_saved what) {
  if (what == FPTT_SAVE_WEIGHTS) return model->weights_count;
  return (size_t)model->learned_count + model->carried_count + 1;
}

static size_t collect(const fptt_learner *l, fptt_saved what, fptt_piece *pieces) {
  const fptt_model *model = l->model;
  const int full = what == FPTT_SAVE_FULL;
  const fptt_extent *own = full ? model->learned : model->weights;
  const uint32_t owned = full ? model->learned_count : model->weights_count;
  size_t count = 0;
  for (uint32_t i = 0; i < owned; i++) {
    pieces[count++] = (fptt_piece){l->arena + own[i].at, own[i].bytes};
  }
  if (!full) return count;
  for (uint32_t i = 0; i < model->carried_count; i++) {
    pieces[count++] = (fptt_piece){l->arena + model->carried[i].at, model->carried[i].bytes};
  }
  /* written back when the learner itself may be written */
  pieces[count++] = (fptt_piece){(void *)(uintptr_t)&l->progress, sizeof l->progress};
  return count;
}

fptt_status fptt_save(const fptt_learner *l, const fptt_flash *flash, fptt_saved what,
                      fptt_piece *pieces) {
  if (what == FPTT_SAVE_FULL && l->at.high > 0) return FPTT_PART_IN_FLIGHT;
  return fptt_flash_save(flash, l->model->identity, what, pieces, collect(l, what, pieces));
}

fptt_status fptt_restore(fptt_learner *l, const fptt_flash *flash, fptt_saved what,
                         fptt_piece *pieces) {
  const fptt_status status =
      fptt_flash_restore(flash, l->model->identity, what, pieces, collect(l, what, pieces));
  if (status == FPTT_FLASH_READ_FAILED) fptt_rollback(l);
  if (status != FPTT_OK && status != FPTT_OLDER_STATE) return status;
  const fptt_progress progress = l->progress;
  if (what == FPTT_SAVE_WEIGHTS) l->model->start(l->arena, (fptt_moment){0, 0, 0, 1});
  l->largest = l->model->largest_learned(l->arena);
  if (l->largest >= BITS_OF_INF || progress.position >= l->model->steps) {
    fptt_rollback(l);
    return FPTT_STATE_NOT_FINITE;
  }
  if (what == FPTT_SAVE_WEIGHTS) {
    forget(l);
    return status;
  }
  l->loss = fptt_float(0x7FC00000u);
  l->fresh = 1;
  memset(l->outputs, 0, (size_t)l->model->batch * l->model->output.width * sizeof(float));
  find_part(l);
  return status;
}

float fptt_share_of_labels(size_t n, const int32_t *target) {
  size_t counted = 0;
  for (size_t r = 0; r < n; r++) counted += target[r] >= 0;
  return 1.0f / (float)(counted ? counted : 1);
}

float fptt_share_of_numbers(size_t n, size_t width, const float *target) {
  size_t counted = 0;
  for (size_t r = 0; r < n; r++) counted += target[r * width] == target[r * width];
  counted *= width;
  return 1.0f / (float)(counted ? counted : 1);
}
