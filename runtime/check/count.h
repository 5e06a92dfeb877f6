/* Counts instructions by function class: generated code names the class of every operation before it
 * runs (FPTT_CLASS). Without FPTT_COUNT_CLASSES nothing is counted and nothing is added to the code.
 */
#ifndef FPTT_COUNT_H
#define FPTT_COUNT_H

#include <stdint.h>

#define FPTT_CLASS_LIST(C)                                                                    \
  C(other) C(MatMul_1) C(MatMul_2) C(MatMul_3) C(Mat2Vec) C(EWO_basic) C(EWO_combo) C(EWO_SGD) \
  C(Sigmoid) C(tanh) C(softmax) C(dataMovement)

enum {
#define FPTT_CLASS_NUMBER(name) FPTT_CLASS_##name,
  FPTT_CLASS_LIST(FPTT_CLASS_NUMBER)
#undef FPTT_CLASS_NUMBER
  FPTT_CLASSES
};

#ifdef FPTT_COUNT_CLASSES
#define FPTT_CLASS(name) fptt_count_class(FPTT_CLASS_##name);
void fptt_count_class(int number);
void fptt_count_start(void);
void fptt_count_stop(void);
void fptt_count_print(void (*line)(const char *name, uint64_t value));
#else
static inline void fptt_count_start(void) {}
static inline void fptt_count_stop(void) {}
static inline void fptt_count_print(void (*line)(const char *name, uint64_t value)) { (void)line; }
#endif

#endif
