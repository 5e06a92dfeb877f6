/* A model that goes on learning on a device: what generated code (model.c) and the application share.
 *
 * `fptt export` writes the routines of one training program as C functions and describes them in a
 * `fptt_model`. This file drives them: it takes the steps of sequences as they come, learns at the
 * end of each part, and stops learning when numbers go bad. It neither allocates nor prints.
 */
#ifndef FPTT_LEARNER_H
#define FPTT_LEARNER_H

#include "fptt.h"
#include "fptt_flash.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a routine stands in a sequence. Loops of the program run over steps [low, high) of the part,
 * counted from its first step; the steps observed so far are [0, high). */
typedef struct {
  uint32_t part;  /* number of the part, from 0 */
  uint32_t begin; /* step of the sequence at which the part begins */
  uint32_t low, high;
} fptt_moment;

typedef void (*fptt_routine)(uint8_t *arena, fptt_moment at);

/* Numbers in the arena, as the application hands them over or takes them away: rows of `width`
 * numbers, those of the next step `step_bytes` further on (0: there is one step only). */
typedef struct {
  uint32_t at; /* offset in the arena, in bytes */
  uint32_t width, step_bytes;
  uint8_t bfloat16;
} fptt_place;

/* Bytes of the arena. */
typedef struct {
  uint32_t at, bytes;
} fptt_extent;

/* Bits of the largest |values| that the next update would read. */
typedef struct {
  uint32_t gradient, input;
} fptt_watched;

/* A program, described by the code that `fptt export` writes; constant. */
typedef struct {
  const char *name;
  const uint8_t *types; /* a symbol of the run time for these number types */
  uint32_t identity; /* differs between programs: a saved state belongs to one */
  uint32_t arena_bytes;
  uint32_t steps, parts, batch;
  fptt_place input, target, output;
  uint32_t tokens; /* how many there are, where the input is a token */
  uint8_t input_is_token, target_is_label;
  uint8_t every_step; /* there is a target at each step; otherwise at the last one of a part */
  uint8_t cautious;   /* constants so large that no update is safe */
  uint32_t loss_at, lr_at;
  uint32_t fraction_at; /* UINT32_MAX where the loss does not ask how far the sequence has come */
  const fptt_extent *weights, *learned, *carried;
  uint32_t weights_count, learned_count, carried_count;
  float loss_limit; /* learning stops when a part's loss passes it */
  /* the routines of the program; `load` copies the factory weights, `accept` is what the loss itself
   * learns once it was found finite */
  fptt_routine load, start, begin_sequence, next_sequence, forward, readout, loss, accept, backward;
  fptt_routine carry, reset, end_epoch;
  uint32_t (*update)(uint8_t *arena, fptt_moment at);    /* bits of the largest |value| written */
  uint32_t (*largest_learned)(const uint8_t *arena);     /* bits */
  uint32_t (*largest_carried)(const uint8_t *arena);     /* bits */
  fptt_watched (*watch)(const uint8_t *arena, fptt_moment at);
} fptt_model;

/* What has to outlive a reset for learning to go on with the same bits; see fptt_save. */
typedef struct {
  uint32_t position; /* steps taken of the sequence, modulo its length */
  uint32_t started;  /* whether the sequence has begun */
  uint32_t updates;  /* parts learnt from since the factory weights, modulo 2^32 */
} fptt_progress;

/* A learner. Its members are to be read, not written, but for `loss_limit`. It stays where it was
 * prepared: a copy would write to the first one's outputs. */
typedef struct {
  const fptt_model *model;
  uint8_t *arena;
  float *outputs; /* of the last step, batch x outputs, where they were taken before learning */
  fptt_progress progress;
  fptt_moment at;     /* the part in flight: at.high steps of it were observed */
  uint32_t largest;   /* bits of the largest |value| that was learnt */
  float loss;         /* of the last part that had a target; NaN before */
  float loss_limit;   /* learning stops with FPTT_LOSS_RUNAWAY when a part's loss passes it */
  int32_t stopped;    /* the fptt_status with which learning stopped, or FPTT_OK */
  uint8_t learning;
  uint8_t targets; /* whether a target was given that counts for the part in flight */
  uint8_t fresh;   /* whether `outputs` are those of the last step */
} fptt_learner;

/* Prepares a learner with the factory weights. `arena` starts at a multiple of 16 bytes and has
 * model->arena_bytes or more; `outputs` has room for batch x outputs numbers.
 * FPTT_ARENA_TOO_SMALL, FPTT_UNALIGNED: nothing was touched. */
fptt_status fptt_init(fptt_learner *learner, const fptt_model *model, void *arena, size_t bytes,
                      float *outputs);

/* A new sequence. A part in flight is forgotten: nothing is learnt from it. */
void fptt_begin_sequence(fptt_learner *learner);

/* The next step of `batch` sequences: x is [batch, inputs] of float, or [batch] of int32_t tokens;
 * target is [batch] of int32_t labels (negative: none) or [batch, outputs] of float (NaN: none), or
 * NULL. At the end of a part learns from it, if any row was given a target that counts (at the
 * part's last step, or at any step where the program has a target at each).
 *
 * FPTT_OK, or why learning has stopped just now; what was learnt before this part stays, and
 * observing goes on without learning until fptt_learning(learner, 1).
 *   FPTT_LOSS_NOT_FINITE, FPTT_LOSS_RUNAWAY, FPTT_UPDATE_NOT_SAFE: nothing was learnt from this part
 *   FPTT_STATE_NOT_FINITE: the recurrent state was set to zero
 *   FPTT_BAD_INPUT: a token or label that does not exist; nothing was done */
fptt_status fptt_observe(fptt_learner *learner, const void *x, const void *target);

/* The sequence ends here, though it has fewer than T steps: learns from the part in flight. */
fptt_status fptt_end_sequence(fptt_learner *learner);

/* The outputs [batch, outputs] (logits, or regression outputs) of the last step observed, as they
 * were before anything was learnt from it. Zeros before the first step. */
void fptt_predict(fptt_learner *learner, float *out);

/* Learning on or off. Off, steps are only observed; on, what stopped it is forgotten. */
void fptt_learning(fptt_learner *learner, int on);

/* What FPTT does after each pass over the data (see the rule's epoch_end, epoch_lambda). */
void fptt_end_epoch(fptt_learner *learner);

/* The learning rate. */
void fptt_set_rate(fptt_learner *learner, float lr);

/* Factory weights, and a rule that remembers nothing; works from any state. Learning stays on or off
 * as it is, and so does the reason why it stopped. */
void fptt_rollback(fptt_learner *learner);

/* -- what survives a reset ------------------------------------------------------------------- */

/* What a save holds. */
typedef enum {
  FPTT_SAVE_WEIGHTS = 1, /* what trains; rule and optimizer start anew */
  FPTT_SAVE_FULL = 2     /* lambda, m, moments, learning rate, recurrent state and position too: after
                            a restore learning goes on with the same bits */
} fptt_saved;

/* How many pieces of memory a save consists of. */
size_t fptt_pieces(const fptt_model *model, fptt_saved what);

/* Saves to flash; `pieces` is room for fptt_pieces of them. See fptt_flash_save for the statuses;
 * FPTT_PART_IN_FLIGHT: a full save is possible between two parts only, when learner->at.high is 0 */
fptt_status fptt_save(const fptt_learner *learner, const fptt_flash *flash, fptt_saved what,
                      fptt_piece *pieces);

/* Restores what was saved last; see fptt_flash_restore for the statuses. Where nothing could be
 * restored the learner is as it was; only FPTT_FLASH_READ_FAILED and FPTT_STATE_NOT_FINITE (what was
 * saved cannot be meant) leave it with the factory weights. */
fptt_status fptt_restore(fptt_learner *learner, const fptt_flash *flash, fptt_saved what,
                         fptt_piece *pieces);

/* -- for generated code ---------------------------------------------------------------------- */

/* One over the number of rows that have a target: labels from 0, or rows of `width` numbers whose
 * first is not NaN; times `width`. */
float fptt_share_of_labels(size_t n, const int32_t *target);
float fptt_share_of_numbers(size_t n, size_t width, const float *target);

static inline uint32_t fptt_larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

#ifdef __cplusplus
}
#endif
#endif
