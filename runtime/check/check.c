/* Trains an exported model on samples that were compiled in, and prints everything it learnt, bit by
 * bit, so that the host can compare (`fptt run`). Built with FPTT_COUNT it also counts instructions by
 * operation.
 *
 * check_data.h says what to do: CHECK_MODEL (the fptt_model), CHECK_ARENA_BYTES, CHECK_OUTPUTS, how
 * many batches, steps and parts, and where the input and the targets of a step are. */
#include <string.h>

#include "check_data.h"
#include "count.h"
#include "fptt_learner.h"
#include "port.h"

/* by these names the host finds them in the linked file; the handle is laid out as model_t is */
uint8_t check_arena[CHECK_ARENA_BYTES] __attribute__((aligned(16)));
struct {
  fptt_learner learner;
  float outputs[CHECK_OUTPUTS];
} check_model;

#define arena check_arena
#define learner check_model.learner
#define outputs check_model.outputs

static void text(const char *words) { fptt_port_write(words, strlen(words)); }

static void number(uint64_t value) {
  char digits[24];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  fptt_port_write(digits + at, sizeof digits - at);
}

static void line(const char *name, uint64_t value) {
  text(name);
  text(" ");
  number(value);
  text("\n");
}

static void word(const char *name, fptt_status status) {
  text(name);
  text(" ");
  text(fptt_status_name(status));
  text("\n");
}

/* Bytes as hexadecimal digits, 64 to a line. */
static void bytes(const char *name, const uint8_t *from, size_t count) {
  static const char digits[] = "0123456789abcdef";
  char row[129];
  text(name);
  text(" ");
  number(count);
  text("\n");
  while (count) {
    const size_t some = count < 64 ? count : 64;
    for (size_t i = 0; i < some; i++) {
      row[2 * i] = digits[from[i] >> 4];
      row[2 * i + 1] = digits[from[i] & 15];
    }
    row[2 * some] = '\n';
    fptt_port_write(row, 2 * some + 1);
    from += some;
    count -= some;
  }
}

/* not on the stack, whose depth is measured */
static float losses[CHECK_BATCHES * CHECK_PARTS];

int main(void) {
  const fptt_model *model = &CHECK_MODEL;
  /* one byte less than the model needs must be refused */
  word("one_byte_less", fptt_init(&learner, model, arena, model->arena_bytes - 1u, outputs));
  const fptt_status ready = fptt_init(&learner, model, arena, sizeof arena, outputs);
  word("init", ready);
  if (ready != FPTT_OK) fptt_port_exit(1);
  fptt_count_start();
  fptt_port_paint_stack();
  const uint64_t before = fptt_port_instructions();
  fptt_status status = FPTT_OK;
  size_t seen = 0;
  for (size_t b = 0; b < CHECK_BATCHES; b++) {
    fptt_begin_sequence(&learner);
    for (size_t t = 0; t < CHECK_STEPS; t++) {
      const uint32_t updates = learner.progress.updates;
      const fptt_status now = fptt_observe(&learner, CHECK_X(b, t), CHECK_Y(b, t));
      if (now != FPTT_OK) status = now;
      if (learner.progress.updates != updates) losses[seen++] = learner.loss;
    }
  }
  const uint64_t after = fptt_port_instructions();
  fptt_count_stop();
  line("instructions", after - before);
  line("stack", fptt_port_stack_used());
  word("status", status);
  line("updates", learner.progress.updates);
  bytes("losses", (const uint8_t *)losses, seen * sizeof losses[0]);
  fptt_predict(&learner, outputs);
  bytes("outputs", (const uint8_t *)outputs, sizeof outputs);
  for (uint32_t i = 0; i < model->learned_count; i++) {
    bytes("learned", arena + model->learned[i].at, model->learned[i].bytes);
  }
  fptt_count_print(line);
  text("end\n");
  fptt_port_exit(0);
}
