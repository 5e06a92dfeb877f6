/* Looks at a program's tables before anything runs. */
#include "engine.h"

/* Bytes from an operand's base to its end, when all rows of all steps run. */
static size_t reach(const fptt_engine *engine, const fptt_operand *operand) {
  size_t item = (size_t)operand->item_bytes, line = (size_t)operand->length * item;
  size_t rows = (size_t)(engine->batch - 1) * (size_t)operand->row_bytes;
  switch (operand->index) {
    case FPTT_FIXED:
      return (size_t)(operand->runs - 1) * (size_t)operand->stride * item + line;
    case FPTT_WHOLE: return rows + line;
    default:
      return (size_t)(engine->part_steps - 1) * (size_t)operand->slot_bytes + rows + line;
  }
}

static int within(const fptt_operand *operand, size_t bytes, const fptt_memory *memory) {
  uintptr_t base = (uintptr_t)operand->base, start = (uintptr_t)memory->start;
  return base >= start && bytes <= memory->bytes && base - start <= memory->bytes - bytes;
}

fptt_status fptt_check(const fptt_engine *engine, const fptt_memory *memory, int32_t pieces) {
  for (int32_t p = 0; p < pieces; p++) {
    if ((uintptr_t)memory[p].start % 16 != 0) return FPTT_UNALIGNED;
  }
  for (int32_t r = 0; r < FPTT_ROUTINES; r++) {
    const fptt_routine *routine = &engine->routine[r];
    if (routine->first < 0 || routine->count < 0 ||
        routine->first + routine->count > engine->block_count) {
      return FPTT_BAD_PROGRAM;
    }
  }
  for (int32_t b = 0; b < engine->block_count; b++) {
    const fptt_block *block = &engine->blocks[b];
    if (block->first < 0 || block->count < 0 || block->first + block->count > engine->op_count) {
      return FPTT_BAD_PROGRAM;
    }
  }
  for (int32_t i = 0; i < engine->op_count; i++) {
    const fptt_op *op = &engine->ops[i];
    if (fptt_kind_name(op->kind) == NULL) return FPTT_UNKNOWN_OP;
    for (int32_t j = 0; j < FPTT_MOST_OPERANDS; j++) {
      const fptt_operand *operand = &op->operand[j];
      int inside = operand->index == FPTT_ABSENT;
      for (int32_t p = 0; p < pieces; p++) {
        inside |= within(operand, reach(engine, operand), &memory[p]);
      }
      if (!inside) return FPTT_ARENA_TOO_SMALL;
    }
  }
  return FPTT_OK;
}
