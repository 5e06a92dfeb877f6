/* Counts instructions by operation of the program: generated code says the number of every operation
 * before it runs (FPTT_OP). Without FPTT_COUNT nothing is counted and nothing is added to the code.
 */
#ifndef FPTT_COUNT_H
#define FPTT_COUNT_H

#include <stdint.h>

#ifdef FPTT_COUNT
#define FPTT_OP(number) fptt_count_op(number);
void fptt_count_op(uint32_t number);
void fptt_count_start(void);
void fptt_count_stop(void);
void fptt_count_print(void (*line)(const char *name, uint64_t value));
#else
static inline void fptt_count_start(void) {}
static inline void fptt_count_stop(void) {}
static inline void fptt_count_print(void (*line)(const char *name, uint64_t value)) { (void)line; }
#endif

#endif
