/* Philox4x32-10, the counter-based generator of Salmon et al., SC 2011: word w of a counter without
 * any state, the same on every target, in any order. */
#ifndef FPTT_RANDOM_H
#define FPTT_RANDOM_H

#include <stdint.h>

static inline void fptt_philox(uint32_t counter[4], uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    uint64_t product0 = (uint64_t)0xD2511F53u * counter[0];
    uint64_t product1 = (uint64_t)0xCD9E8D57u * counter[2];
    counter[0] = (uint32_t)(product1 >> 32) ^ counter[1] ^ key0;
    counter[1] = (uint32_t)product1;
    counter[2] = (uint32_t)(product0 >> 32) ^ counter[3] ^ key1;
    counter[3] = (uint32_t)product0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/* The key of the random numbers that round one of the values (0 theta, 1 lambda, 2 m) of a tensor
 * in an update. */
static inline uint32_t fptt_rounding_key(uint32_t seed, uint32_t update, uint32_t tensor,
                                         uint32_t value) {
  uint32_t counter[4] = {value, tensor, update, 0};
  fptt_philox(counter, seed, 0);
  return counter[0];
}

/* 32 random bits for an element: its number and the key, mixed by multiplications and shifts. */
static inline uint32_t fptt_noise(uint32_t key, uint32_t element) {
  uint32_t bits = (element * 0x9E3779B9u) ^ key;
  bits = (bits ^ (bits >> 16)) * 0x7FEB352Du;
  bits = (bits ^ (bits >> 15)) * 0x846CA68Bu;
  return bits ^ (bits >> 16);
}

#endif
