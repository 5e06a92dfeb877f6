/* The engine: runs a program that lies before it as tables of operations.
 *
 * Python (compile.py) writes the tables, and owns all memory. What stands between
 * the two marks below is declared to Python too (build_ffi.py).
 */
#ifndef FPTT_ENGINE_H
#define FPTT_ENGINE_H

#include "fptt.h"
#include "kernels.h"
#include "pool.h"

/* cdef begin */
#define FPTT_MOST_OPERANDS 17
#define FPTT_ATTRIBUTES 4
/* of the numbers of elements from row to row of a matrix, for stochastic rounding */
#define FPTT_ROW_DISTANCE 65537

/* Which rows of its buffer an operand names. */
enum {
  FPTT_ABSENT,
  FPTT_FIXED, /* no batch axis */
  FPTT_WHOLE, /* the running rows of a buffer without steps, or of one fixed slot */
  FPTT_STEP,  /* the running rows of slot t */
  FPTT_ALL,   /* the rows of all steps */
  FPTT_LAST   /* of every row, its last step */
};

typedef struct {
  uint8_t *base;      /* of slot 0, row 0 and the first column wanted */
  int64_t slot_bytes; /* from step to step */
  int64_t row_bytes;  /* from row to row */
  int32_t index;
  int32_t item_bytes;
  int32_t runs;   /* without rows: lines in memory; with rows: 1 */
  int32_t length; /* neighbouring elements of a line or row */
  int32_t stride; /* from line to line, or from row to row, in elements */
  int32_t transposed;
  int32_t watched; /* an update multiplies it: 1 a gradient, 2 an input; see fptt_update_is_safe */
} fptt_operand;

typedef struct {
  int32_t kind;
  int32_t mode; /* the index that decides over the rows of the operation */
  int32_t after_first; /* not at the first step of a part */
  fptt_operand operand[FPTT_MOST_OPERANDS];
  fptt_update_rule rule;
  uint32_t tensor, first_element; /* for stochastic rounding, see fptt_learned */
  double attribute[FPTT_ATTRIBUTES];
} fptt_op;

/* Operations that run once (turn 0) or for every step, forwards (1) or backwards (-1). */
typedef struct {
  int32_t first, count, turn;
  int32_t by_rows; /* all of them work on each row alone, so threads can share the rows */
} fptt_block;

typedef struct {
  int32_t first, count; /* blocks */
} fptt_routine;

enum {
  FPTT_START,
  FPTT_RESET,
  FPTT_BEGIN_SEQUENCE,
  FPTT_NEXT_SEQUENCE,
  FPTT_FORWARD,
  FPTT_LOSS,
  FPTT_BACKWARD,
  FPTT_UPDATE,
  FPTT_CARRY,
  FPTT_END_EPOCH,
  FPTT_BEGIN_INFERENCE,
  FPTT_INFER,
  FPTT_READOUT,
  FPTT_ROUTINES
};

/* One part of one batch: `rows[t]` of its steps, never growing, never 0. */
typedef struct {
  int32_t part, begin, steps;
  const int32_t *rows;
} fptt_frame;

/* A run of rows that one kernel call can take. */
typedef struct {
  int32_t slot, row, rows;
} fptt_segment;

/* How a batch is handed over and what comes back; rows are sorted, the longest first. */
typedef struct {
  int32_t rows, steps, parts; /* steps: T of the program, which the parts divide */
  const int32_t *lengths;
  int32_t unequal; /* some sequence is shorter than T */
  const uint8_t *x, *targets;
  int64_t x_row_bytes, x_step_bytes, target_row_bytes, target_step_bytes;
  double *losses; /* of every part, NaN where nothing counts */
} fptt_batch;

/* Where those who drive the program write and read. */
typedef struct {
  fptt_operand input, target, fraction; /* fraction may be absent */
  int32_t target_is_label, every_step;
  const float *loss, *lr;
  fptt_operand *carried; /* the slots from which the next part goes on */
  int32_t carried_count;
  fptt_operand *learned; /* the numbers that are learnt, for a look at their size */
  int32_t learned_count;
  uint8_t *moved, *moved_copy; /* what the routine `loss` learns in a part, and room to remember it */
  int64_t moved_bytes, moved_distance; /* of a part's share, and from part to part */
  int32_t cautious; /* constants so large that no update is safe unseen */
} fptt_driver;

typedef struct {
  const fptt_kernels *kernels;
  const fptt_op *ops;
  const fptt_block *blocks;
  fptt_routine routine[FPTT_ROUTINES];
  int32_t op_count, block_count;
  int32_t batch, part_steps; /* most rows, most steps of a part */
  fptt_segment *segments; /* room for as many as a part has steps, or rows */
  fptt_span *spans;       /* likewise */
  int32_t *rows;          /* room for the steps of a part */
  uint32_t largest;       /* bits of the largest |value| that an update wrote since it was set */
  fptt_driver driver;
  fptt_pool *pool; /* or NULL */
} fptt_engine;

/* Threads in a place of fptt_pool_bytes() bytes that the caller keeps; answers how many there are,
 * with the caller's own. */
size_t fptt_pool_bytes(void);
int32_t fptt_pool_start(fptt_pool *pool, int32_t threads);
void fptt_pool_stop(fptt_pool *pool);

/* A piece of memory that the program may use. */
typedef struct {
  const uint8_t *start;
  size_t bytes;
} fptt_memory;

/* Whether the tables are sound: known operations, and every operand, at its largest, inside one of
 * the pieces of memory, which start at multiples of 16 bytes. */
fptt_status fptt_check(const fptt_engine *engine, const fptt_memory *memory, int32_t pieces);

fptt_status fptt_run(fptt_engine *engine, int32_t routine, const fptt_frame *frame, int32_t step);

/* Trains on a batch from part *part on, and leaves there the number of the part to go on with.
 * FPTT_PAUSED: some seconds have passed, call again. FPTT_LOSS_NOT_FINITE: nothing was learnt from
 * this part. FPTT_UPDATE_NOT_SAFE: the part's gradient is there, but it or what is learnt is so
 * large that the caller should keep a copy before the update. FPTT_STATE_NOT_FINITE: after the
 * update and the carry of this part. */
fptt_status fptt_train(fptt_engine *engine, const fptt_batch *batch, int32_t *part, double seconds);

/* 1 if the update can be run without a copy of what is learnt: neither what it reads nor what is
 * learnt is so large that it could overflow */
int32_t fptt_update_is_safe(fptt_engine *engine, const fptt_frame *frame);

/* looks at everything that is learnt and sets engine->largest */
void fptt_measure_learned(fptt_engine *engine);

/* names of the kinds of operations, in the order of their numbers; NULL after the last */
const char *fptt_kind_name(int32_t kind);

/* instruction sets, the best last; whether this machine has it; its kernels for types 0: float,
 * 1: bfloat16 activations, 2: bfloat16 parameters, 3: both */
const char *fptt_isa_name(int32_t isa);
int32_t fptt_isa_runs_here(int32_t isa);
const fptt_kernels *fptt_isa_kernels(int32_t isa, int32_t types);

/* cdef end */

#endif
