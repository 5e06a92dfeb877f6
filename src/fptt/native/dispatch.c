/* Which builds of the kernels there are, and which of them this machine runs. */
#include "bench.h"

#if defined(__x86_64__)
#define FPTT_ISA_LIST(I) I(baseline) I(avx2) I(avx512)
#else
#define FPTT_ISA_LIST(I) I(baseline)
#endif

/* float; bfloat16 activations; bfloat16 parameters; both */
#define FPTT_TYPES_LIST(T, isa) T(isa, 0) T(isa, 1) T(isa, 2) T(isa, 3)

#define FPTT_DECLARE(isa, types) extern const fptt_kernels fptt_kernels_##isa##_##types;
#define FPTT_DECLARE_ISA(isa) FPTT_TYPES_LIST(FPTT_DECLARE, isa)
FPTT_ISA_LIST(FPTT_DECLARE_ISA)

enum {
#define FPTT_ISA_NUMBER(isa) ISA_##isa,
  FPTT_ISA_LIST(FPTT_ISA_NUMBER)
#undef FPTT_ISA_NUMBER
  ISAS
};

const char *fptt_isa_name(int32_t isa) {
  static const char *const names[] = {
#define FPTT_ISA_NAME(isa) #isa,
      FPTT_ISA_LIST(FPTT_ISA_NAME)
#undef FPTT_ISA_NAME
  };
  return isa >= 0 && isa < ISAS ? names[isa] : NULL;
}

int32_t fptt_isa_runs_here(int32_t isa) {
  if (isa == ISA_baseline) return 1;
#if defined(__x86_64__)
  if (isa == ISA_avx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }
  if (isa == ISA_avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  }
#endif
  return 0;
}

const fptt_kernels *fptt_isa_kernels(int32_t isa, int32_t types) {
  static const fptt_kernels *const tables[ISAS][4] = {
#define FPTT_ENTRY(isa, types) &fptt_kernels_##isa##_##types,
#define FPTT_ENTRIES(isa) {FPTT_TYPES_LIST(FPTT_ENTRY, isa)},
      FPTT_ISA_LIST(FPTT_ENTRIES)
#undef FPTT_ENTRIES
#undef FPTT_ENTRY
  };
  return isa >= 0 && isa < ISAS && types >= 0 && types < 4 ? tables[isa][types] : NULL;
}

const fptt_limits *fptt_isa_limits(int32_t isa) {
#define FPTT_DECLARE_LIMITS(isa) extern const fptt_limits fptt_limits_##isa;
  FPTT_ISA_LIST(FPTT_DECLARE_LIMITS)
#undef FPTT_DECLARE_LIMITS
  static const fptt_limits *const limits[] = {
#define FPTT_LIMITS_ENTRY(isa) &fptt_limits_##isa,
      FPTT_ISA_LIST(FPTT_LIMITS_ENTRY)
#undef FPTT_LIMITS_ENTRY
  };
  return isa >= 0 && isa < ISAS ? limits[isa] : NULL;
}
