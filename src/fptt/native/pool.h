/* A few threads that wait for work. They change who computes what, never the result. */
#ifndef FPTT_POOL_H
#define FPTT_POOL_H

#include <pthread.h>
#include <stdint.h>

#define FPTT_MOST_THREADS 64

typedef void (*fptt_job)(void *context, int32_t number, int32_t of);

typedef struct fptt_pool {
  int32_t threads; /* with the caller's own */
  int32_t process; /* the threads exist in this process only, not in its forks */
  pthread_t thread[FPTT_MOST_THREADS];
  pthread_mutex_t lock;
  pthread_cond_t wake;
  fptt_job job;
  void *context;
  int32_t parts;
  _Atomic uint32_t round; /* counts the jobs */
  _Atomic int32_t busy, stop;
} fptt_pool;

/* Runs job(context, number, of) for number 0 to of - 1, the first in the calling thread; returns
 * when all are done. Without a pool, one after the other. */
void fptt_pool_run(fptt_pool *pool, fptt_job job, void *context, int32_t of);

#endif
