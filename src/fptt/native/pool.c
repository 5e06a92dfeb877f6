/* A few threads that wait for work: for a moment actively, because the next job mostly follows at
 * once, then asleep. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

#include "engine.h"

/* turns of the loop that waits actively: some microseconds */
#define SPINS 4000

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() sched_yield()
#endif

static uint32_t next_round(fptt_pool *pool, uint32_t seen) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load(&pool->round) != seen || atomic_load(&pool->stop)) {
      return atomic_load(&pool->round);
    }
    RELAX();
  }
  pthread_mutex_lock(&pool->lock);
  while (atomic_load(&pool->round) == seen && !atomic_load(&pool->stop)) {
    pthread_cond_wait(&pool->wake, &pool->lock);
  }
  pthread_mutex_unlock(&pool->lock);
  return atomic_load(&pool->round);
}

static void *work(void *argument) {
  fptt_pool *pool = argument;
  /* a thread finds its number by taking the next one */
  int32_t number = atomic_fetch_add(&pool->busy, 1) + 1;
  uint32_t seen = 0;
  for (;;) {
    seen = next_round(pool, seen);
    if (atomic_load(&pool->stop)) return NULL;
    if (number < pool->parts) pool->job(pool->context, number, pool->parts);
    atomic_fetch_sub(&pool->busy, 1);
  }
}

size_t fptt_pool_bytes(void) { return sizeof(fptt_pool); }

int32_t fptt_pool_start(fptt_pool *pool, int32_t threads) {
  if (threads > FPTT_MOST_THREADS) threads = FPTT_MOST_THREADS;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  atomic_store(&pool->round, 0);
  atomic_store(&pool->busy, 0);
  atomic_store(&pool->stop, 0);
  pool->process = (int32_t)getpid();
  pool->threads = 1;
  while (pool->threads < threads) {
    if (pthread_create(&pool->thread[pool->threads], NULL, work, pool) != 0) break;
    pool->threads++;
  }
  while (atomic_load(&pool->busy) < pool->threads - 1) sched_yield(); /* all have their numbers */
  atomic_store(&pool->busy, 0);
  return pool->threads;
}

void fptt_pool_stop(fptt_pool *pool) {
  if (pool->process != (int32_t)getpid()) return;
  pthread_mutex_lock(&pool->lock);
  atomic_store(&pool->stop, 1);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (int32_t i = 1; i < pool->threads; i++) pthread_join(pool->thread[i], NULL);
  pool->threads = 1;
}

void fptt_pool_run(fptt_pool *pool, fptt_job job, void *context, int32_t of) {
  int32_t here = pool && pool->process == (int32_t)getpid() ? pool->threads : 1;
  if (of <= 1 || here < of) {
    for (int32_t i = 0; i < of; i++) job(context, i, of);
    return;
  }
  pool->job = job;
  pool->context = context;
  pool->parts = of;
  atomic_store(&pool->busy, here - 1);
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->round, 1);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  job(context, 0, of);
  for (int i = 0; atomic_load(&pool->busy) > 0; i++) {
    if (i < SPINS) {
      RELAX();
    } else {
      i--;
      sched_yield();
    }
  }
}
