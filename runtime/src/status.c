/* Names and texts of the answers. */
#include "fptt.h"

const char *fptt_status_name(fptt_status status) {
  switch (status) {
#define FPTT_STATUS_CASE(name, text) \
  case FPTT_##name: return "FPTT_" #name;
    FPTT_STATUS_LIST(FPTT_STATUS_CASE)
#undef FPTT_STATUS_CASE
    default: return "unknown status";
  }
}

const char *fptt_status_text(fptt_status status) {
  switch (status) {
#define FPTT_STATUS_CASE(name, text) \
  case FPTT_##name: return text;
    FPTT_STATUS_LIST(FPTT_STATUS_CASE)
#undef FPTT_STATUS_CASE
    default: return "unknown status";
  }
}
