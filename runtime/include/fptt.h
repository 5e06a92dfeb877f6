/* fptt: the runtime that executes training programs, on the host and on the device.
 *
 * C11 without malloc, stdio and libm. Whoever calls owns all memory. The kernels (see kernels.h)
 * are plain functions on pointers and sizes; they keep no state.
 */
#ifndef FPTT_H
#define FPTT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Everything that a function of this library may answer: name and text in one list. */
#define FPTT_STATUS_LIST(S)                                                        \
  S(OK, "done")                                                                    \
  S(UNKNOWN_OP, "the program has an operation that this build does not know")      \
  S(ARENA_TOO_SMALL, "an operation would reach beyond the memory given")            \
  S(UNALIGNED, "the memory given does not start at a multiple of 16 bytes")        \
  S(BAD_PROGRAM, "the program's tables contradict each other")                     \
  S(LOSS_NOT_FINITE, "the loss became NaN or Inf")                                 \
  S(STATE_NOT_FINITE, "a carried state became NaN or Inf")                         \
  S(UPDATE_NOT_SAFE, "numbers so large that the update could overflow")            \
  S(PAUSED, "stopped between two parts, as asked; call again to go on")           \
  S(FLASH_GEOMETRY, "the description of the flash contradicts itself")             \
  S(FLASH_TOO_SMALL, "a slot of the flash is smaller than what is to be saved")    \
  S(FLASH_WRITE_FAILED, "the flash did not keep it; what was saved before stays")  \
  S(FLASH_READ_FAILED, "the flash changed as it was read; load the memory anew")   \
  S(NOTHING_SAVED, "the flash holds no complete state")                            \
  S(OTHER_PROGRAM, "what is saved belongs to another program")                     \
  S(OTHER_KIND, "what is saved is of another kind: weights or everything")         \
  S(OLDER_STATE, "restored, but something newer is damaged or unfinished")         \
  S(LOSS_RUNAWAY, "the loss of a part passed the limit that was set")              \
  S(BAD_INPUT, "a token or label that the model does not have")                    \
  S(PART_IN_FLIGHT, "everything can be saved between two parts only")

typedef enum {
#define FPTT_STATUS_NAME(name, text) FPTT_##name,
  FPTT_STATUS_LIST(FPTT_STATUS_NAME)
#undef FPTT_STATUS_NAME
  FPTT_STATUS_COUNT
} fptt_status;

/* cdef begin */
/* gradient_update: with a tile, rows are taken so many at a time, and so many columns. The builder of
 * programs (fptt/program/training.py) has the same numbers. */
#define FPTT_TILE_ROWS 256
#define FPTT_TILE_COLUMNS 64

/* "major.minor.patch" */
const char *fptt_version(void);

/* The name ("FPTT_OK") and the explanation of a status; of any other number "unknown status". */
const char *fptt_status_name(fptt_status status);
const char *fptt_status_text(fptt_status status);

/* Rows of numbers: row r starts at data + r * stride elements. */
typedef struct {
  void *data;
  size_t stride;
} fptt_rows;

/* The factors of a product: x[n, inner] and a matrix whose lines are w_stride elements apart. */
typedef struct {
  size_t inner;
  fptt_rows x;
  const void *w;
  size_t w_stride;
} fptt_factors;

/* A run of rows that lie at one distance: p and q are read side by side. */
typedef struct {
  const void *p;
  const void *q;
  size_t rows;
} fptt_span;

/* A tensor being learnt and what rule and optimizer remember of it, all laid out alike:
 * `runs` runs of `length` neighbouring numbers, one every `stride`. Absent ones are NULL. */
typedef struct {
  void *theta, *lambda, *mean, *first, *second;
  size_t runs, length, stride;
  /* for stochastic rounding: the first one's number, and the distance of numbers from run to run
   * and within a run */
  uint32_t element, element_by_run, element_by_place;
} fptt_learned;

typedef enum { FPTT_SGD, FPTT_MOMENTUM, FPTT_ADAM } fptt_optimizer;

/* Constants of an update; see `update` and `fptt_update` in the op table for the formulas.
 * What is derived (1 - beta, ...) is computed once, in double, and rounded. */
typedef struct {
  fptt_optimizer optimizer;
  int wrapped;  /* FPTT around the optimizer */
  int directed; /* g is the direction d already */
  float momentum;
  float beta1, one_minus_beta1, beta2, one_minus_beta2, epsilon;
  float alpha, beta, one_minus_beta, beta_over_alpha;
  float pull; /* coefficient of lambda: 1 in mode "code", 1/2 in mode "paper" */
  int stochastic; /* bfloat16 theta, lambda and m are rounded up or down at random */
} fptt_update_rule;

/* Numbers of one update: learning rate, clipping factor (1 without), Adam's two corrections, and
 * keys of the random numbers that round theta, lambda and m. */
typedef struct {
  float lr, factor, correction1, correction2;
  uint32_t key[3];
} fptt_step;
/* cdef end */

#ifdef __cplusplus
}
#endif
#endif
