/* A session's worker threads. Each worker waits at a mailbox of its own, so a thread that has no part in a call never
 * touches it. Waiting is spinning for some microseconds, then yielding, then sleeping. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "internal.h"

enum {
  CACHE_LINE = 128,      /* two lines: x86 fetches pairs */
  SPINS = 2000,          /* pauses before yielding */
  YIELDS = 200,          /* yields before sleeping */
  STACK_BYTES = 1 << 20, /* kernels keep small tiles on the stack */
};

struct worker {
  _Alignas(CACHE_LINE) atomic_uint posted; /* jobs given to the worker */
  _Alignas(CACHE_LINE) atomic_uint done;   /* jobs it has finished */
  int32_t result;                          /* of its last job */
  atomic_bool asleep;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  pthread_t thread;
  struct ipu_pool *pool;
  uint32_t rank; /* 1 .. threads - 1; the caller's thread is 0 */
};

struct ipu_pool {
  uint32_t threads;
  uint32_t started; /* workers that run */
  uint8_t *scratch;
  size_t scratch_stride;
  const struct ipu_job *job; /* NULL tells workers to end */
  uint32_t parts;
  struct worker *workers; /* [threads - 1] */
};

static inline void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
  __asm__ volatile("yield");
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Runs part `part` of `parts` equal parts of the job. */
static int32_t run_part(const struct ipu_pool *pool, const struct ipu_job *job, uint32_t part, uint32_t parts) {
  int32_t begin = (int32_t)((int64_t)job->extent * part / parts);
  int32_t end = (int32_t)((int64_t)job->extent * (part + 1) / parts);
  return job->kernel(job->args, pool->scratch + pool->scratch_stride * part, begin, end);
}

/* Waits until more than `seen` jobs are posted; returns the new count. */
static unsigned wait_for_job(struct worker *worker, unsigned seen) {
  unsigned posted;
  for (int i = 0; i < SPINS + YIELDS; i++) {
    posted = atomic_load_explicit(&worker->posted, memory_order_acquire);
    if (posted != seen) return posted;
    if (i < SPINS) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
  pthread_mutex_lock(&worker->lock);
  atomic_store(&worker->asleep, true);
  while ((posted = atomic_load(&worker->posted)) == seen) pthread_cond_wait(&worker->wake, &worker->lock);
  atomic_store(&worker->asleep, false);
  pthread_mutex_unlock(&worker->lock);
  return posted;
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct ipu_pool *pool = worker->pool;
  for (unsigned seen = 0;;) {
    seen = wait_for_job(worker, seen);
    const struct ipu_job *job = pool->job;
    if (!job) return NULL;
    worker->result = run_part(pool, job, worker->rank, pool->parts);
    atomic_store_explicit(&worker->done, seen, memory_order_release);
  }
}

static void post(struct worker *worker) {
  atomic_fetch_add(&worker->posted, 1);
  if (atomic_load(&worker->asleep)) {
    pthread_mutex_lock(&worker->lock);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
  }
}

static int32_t wait_until_done(struct worker *worker) {
  unsigned posted = atomic_load_explicit(&worker->posted, memory_order_relaxed);
  for (int i = 0; atomic_load_explicit(&worker->done, memory_order_acquire) != posted; i++) {
    if (i < SPINS) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
  return worker->result;
}

int32_t ipu_pool_run(struct ipu_pool *pool, const struct ipu_job *job) {
  uint32_t worth = (uint32_t)(job->extent / job->grain);
  uint32_t parts = worth < pool->threads ? worth : pool->threads;
  if (parts <= 1) return job->extent ? run_part(pool, job, 0, 1) : 0;
  pool->job = job;
  pool->parts = parts;
  for (uint32_t i = 1; i < parts; i++) post(&pool->workers[i - 1]);
  int32_t result = run_part(pool, job, 0, parts);
  for (uint32_t i = 1; i < parts; i++) {
    int32_t other = wait_until_done(&pool->workers[i - 1]);
    if (result == 0) result = other;
  }
  return result;
}

/* Starts the worker's thread with all signals blocked: they belong to the program's own threads. */
static bool start_thread(struct worker *worker) {
  pthread_attr_t attributes;
  sigset_t all, before;
  if (pthread_attr_init(&attributes) != 0) return false;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool ok = pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0 &&
            pthread_create(&worker->thread, &attributes, work, worker) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return ok;
}

static bool start_worker(struct ipu_pool *pool, uint32_t rank) {
  struct worker *worker = &pool->workers[rank - 1];
  worker->pool = pool;
  worker->rank = rank;
  if (pthread_mutex_init(&worker->lock, NULL) != 0) return false;
  if (pthread_cond_init(&worker->wake, NULL) != 0) {
    pthread_mutex_destroy(&worker->lock);
    return false;
  }
  if (start_thread(worker)) return true;
  pthread_cond_destroy(&worker->wake);
  pthread_mutex_destroy(&worker->lock);
  return false;
}

tvm_ipu_status ipu_pool_create(uint32_t threads, uint8_t *scratch, size_t scratch_stride, struct ipu_pool **pool,
                               tvm_ipu_error *error) {
  struct ipu_pool *created = calloc(1, sizeof *created);
  void *workers = NULL;
  if (!created || (threads > 1 && posix_memalign(&workers, CACHE_LINE, (threads - 1) * sizeof(struct worker)) != 0)) {
    free(created);
    return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for %u threads", threads);
  }
  created->threads = threads;
  created->scratch = scratch;
  created->scratch_stride = scratch_stride;
  created->workers = workers;
  for (uint32_t rank = 1; rank < threads; rank++) {
    created->workers[rank - 1] = (struct worker){0};
    if (!start_worker(created, rank)) {
      ipu_pool_destroy(created);
      return ipu_fail(error, TVM_IPU_ERROR_THREAD, "ask for fewer threads", "cannot start thread %u of %u", rank + 1,
                      threads);
    }
    created->started++;
  }
  *pool = created;
  return TVM_IPU_OK;
}

void ipu_pool_destroy(struct ipu_pool *pool) {
  if (!pool) return;
  pool->job = NULL;
  for (uint32_t i = 0; i < pool->started; i++) post(&pool->workers[i]);
  for (uint32_t i = 0; i < pool->started; i++) {
    pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->workers[i].wake);
    pthread_mutex_destroy(&pool->workers[i].lock);
  }
  free(pool->workers);
  free(pool);
}
