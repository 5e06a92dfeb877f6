/* The version, which the build gives. */
#include "fptt.h"

const char *fptt_version(void) { return FPTT_VERSION; }
