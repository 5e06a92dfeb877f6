/* Drives a training program through the parts of a batch: forward, loss, backward, update, carry,
 * and the watch for numbers that are none. */
#define _POSIX_C_SOURCE 199309L
#include "drive.h"
#include "fptt_math.h"

#include <string.h>
#include <time.h>

#define BITS_OF_INF 0x7F800000u

/* Below these, no update can overflow: a gradient up to GRADIENT has a square below 1e36; with a
 * learning rate and alpha up to 1000, beta / alpha up to a million and what is learnt up to LEARNED,
 * nothing passes 1e30. */
#define LEARNED_LIMIT 1e12f
#define GRADIENT_LIMIT 1e18f
#define LR_LIMIT 1e3f

static uint32_t bits_of(float value) { return fptt_bits(value) & 0x7FFFFFFFu; }

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void fptt_measure_learned(fptt_engine *engine) {
  const fptt_segment none = {0, 0, 0};
  engine->largest = 0;
  for (int32_t i = 0; i < engine->driver.learned_count; i++) {
    uint32_t bits = fptt_largest_of(engine, &engine->driver.learned[i], &none);
    engine->largest = bits > engine->largest ? bits : engine->largest;
  }
}

int32_t fptt_update_is_safe(fptt_engine *engine, const fptt_frame *frame) {
  if (engine->driver.cautious || engine->largest >= bits_of(LEARNED_LIMIT) ||
      bits_of(*engine->driver.lr) >= bits_of(LR_LIMIT)) {
    return 0;
  }
  fptt_factors_bound bound = fptt_largest_watched(engine, FPTT_UPDATE, frame);
  float input = fptt_float(bound.inputs), rows = (float)frame->steps * (float)frame->rows[0];
  /* a sum over the rows of gradient times input, or of gradients; of a NaN the answer is no */
  return fptt_float(bound.gradients) * (input > 1.0f ? input : 1.0f) * rows < GRADIENT_LIMIT &&
         bound.inputs < BITS_OF_INF;
}

/* First step of part p: floor(p T / K). */
static int32_t bound(const fptt_batch *batch, int32_t part) {
  return (int32_t)((int64_t)part * batch->steps / batch->parts);
}

static int32_t running(const fptt_batch *batch, int32_t step) {
  int32_t rows = 0;
  while (rows < batch->rows && batch->lengths[rows] > step) rows++;
  return rows;
}

/* Copies `items` items of one row; floats are rounded where the buffer holds bfloat16. */
static void put(uint8_t *to, const uint8_t *from, size_t items, int32_t item_bytes) {
  if (item_bytes == 4) {
    memcpy(to, from, 4 * items);
    return;
  }
  for (size_t i = 0; i < items; i++) {
    uint32_t bits;
    memcpy(&bits, from + 4 * i, 4);
    bits = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    memcpy(to + 2 * i, &(uint16_t){(uint16_t)bits}, 2);
  }
}

static void write_input(const fptt_driver *driver, const fptt_batch *batch,
                        const fptt_frame *frame) {
  const fptt_operand *input = &driver->input;
  for (int32_t t = 0; t < frame->steps; t++) {
    for (int32_t r = 0; r < frame->rows[t]; r++) {
      put(input->base + t * input->slot_bytes + r * input->row_bytes,
          batch->x + (frame->begin + t) * batch->x_step_bytes + r * batch->x_row_bytes,
          (size_t)input->length, input->item_bytes);
    }
  }
}

static int is_target(const fptt_driver *driver, const uint8_t *target) {
  int32_t label;
  float number;
  memcpy(&label, target, sizeof label);
  memcpy(&number, target, sizeof number);
  return driver->target_is_label ? label >= 0 : number == number;
}

/* Writes the targets of the part; answers whether any running row has one. */
static int write_targets(const fptt_driver *driver, const fptt_batch *batch,
                         const fptt_frame *frame) {
  const fptt_operand *target = &driver->target;
  int32_t slots = driver->every_step ? frame->steps : 1;
  int any = 0;
  for (int32_t t = 0; t < slots; t++) {
    for (int32_t r = 0; r < frame->rows[t]; r++) {
      const uint8_t *from = batch->targets + r * batch->target_row_bytes;
      if (driver->every_step) from += (frame->begin + t) * batch->target_step_bytes;
      put(target->base + t * target->slot_bytes + r * target->row_bytes, from,
          (size_t)target->length, target->item_bytes);
      any |= is_target(driver, from);
    }
  }
  return any;
}

/* b of the auxiliary loss: the share of its sequence that a row has seen. */
static void write_fractions(const fptt_driver *driver, const fptt_batch *batch,
                            const fptt_frame *frame) {
  const fptt_operand *fraction = &driver->fraction;
  if (fraction->index == FPTT_ABSENT) return;
  for (int32_t r = 0; r < frame->rows[0]; r++) {
    int32_t end = frame->begin + frame->steps;
    double share = (double)(frame->part + 1) / batch->parts;
    if (batch->unequal) {
      share = (double)(batch->lengths[r] < end ? batch->lengths[r] : end) / batch->lengths[r];
    }
    memcpy(fraction->base + r * fraction->row_bytes, &(float){(float)share}, sizeof(float));
  }
}

static fptt_status train_part(fptt_engine *engine, const fptt_batch *batch,
                              const fptt_frame *frame, double *loss) {
  fptt_driver *driver = &engine->driver;
  write_input(driver, batch, frame);
  fptt_run(engine, FPTT_FORWARD, frame, -1);
  if (write_targets(driver, batch, frame)) {
    write_fractions(driver, batch, frame);
    uint8_t *moved = driver->moved + frame->part * driver->moved_distance;
    if (driver->moved_bytes) memcpy(driver->moved_copy, moved, (size_t)driver->moved_bytes);
    fptt_run(engine, FPTT_LOSS, frame, -1);
    *loss = (double)*driver->loss;
    if (bits_of(*driver->loss) >= BITS_OF_INF) {
      if (driver->moved_bytes) {
        memcpy(moved, driver->moved_copy, (size_t)driver->moved_bytes);
      }
      return FPTT_LOSS_NOT_FINITE;
    }
    fptt_run(engine, FPTT_BACKWARD, frame, -1);
    if (!fptt_update_is_safe(engine, frame)) return FPTT_UPDATE_NOT_SAFE;
    fptt_run(engine, FPTT_UPDATE, frame, -1);
  }
  fptt_run(engine, FPTT_CARRY, frame, -1);
  const fptt_segment rows = {0, 0, frame->rows[0]};
  for (int32_t i = 0; i < driver->carried_count; i++) {
    if (fptt_largest_of(engine, &driver->carried[i], &rows) >= BITS_OF_INF) {
      return FPTT_STATE_NOT_FINITE;
    }
  }
  return FPTT_OK;
}

fptt_status fptt_train(fptt_engine *engine, const fptt_batch *batch, int32_t *part,
                       double seconds) {
  const double start = seconds_now();
  fptt_measure_learned(engine);
  for (; *part < batch->parts; ++*part) {
    fptt_frame frame = {*part, bound(batch, *part), 0, engine->rows};
    int32_t high = bound(batch, *part + 1);
    while (frame.begin + frame.steps < high) {
      int32_t rows = running(batch, frame.begin + frame.steps);
      if (rows == 0) break;
      engine->rows[frame.steps++] = rows;
    }
    if (frame.steps == 0) break;
    if (*part == 0) {
      fptt_run(engine, FPTT_BEGIN_SEQUENCE, &frame, -1);
      fptt_run(engine, FPTT_NEXT_SEQUENCE, &frame, -1);
    }
    fptt_status status = train_part(engine, batch, &frame, &batch->losses[*part]);
    if (status != FPTT_OK) return status;
    if (*part + 1 < batch->parts && seconds_now() - start > seconds) {
      ++*part;
      return FPTT_PAUSED;
    }
  }
  *part = batch->parts;
  return FPTT_OK;
}
