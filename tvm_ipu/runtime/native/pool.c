/* A session's worker threads. Each worker waits at a mailbox of its own, so a thread that has no part in a call never
 * touches it. Waiting is spinning for some microseconds, then yielding, then sleeping.
 *
 * Every thread of a job has a share of its units, the same one in every job of that extent, so that it finds in its
 * caches what it wrote before. A thread takes half of what is left of its share at a time, and then helps the others:
 * nobody waits for a thread that wakes late or was given less of the machine. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

enum {
  CACHE_LINE = 128,      /* two lines: x86 fetches pairs */
  SPINS = 2000,          /* pauses before yielding */
  YIELDS = 200,          /* yields before sleeping */
  STACK_BYTES = 1 << 20, /* kernels keep small tiles on the stack */
};

/* What a mailbox holds. The caller posts, the worker takes; a job that nobody has taken is withdrawn. */
enum { IDLE, POSTED, TAKEN, QUIT };

struct worker {
  _Alignas(CACHE_LINE) atomic_int mailbox;
  int32_t result; /* of its last job */
  atomic_bool asleep;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  pthread_t thread;
  struct ipu_pool *pool;
  uint32_t rank; /* 1 .. threads - 1; the caller's thread is 0 */
};

struct share {
  _Alignas(CACHE_LINE) _Atomic int32_t next; /* first unit that nobody has taken */
};

struct ipu_pool {
  uint32_t threads;
  uint32_t started; /* workers that run */
  pid_t process;    /* that they run in */
  uint8_t *scratch;
  size_t scratch_stride;
  const struct ipu_job *job;
  uint32_t parts;         /* threads of the job */
  struct worker *workers; /* [threads - 1] */
  struct share *shares;   /* [threads] */
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

/* First unit of share `part`; shares are equal. */
static int32_t share_begin(const struct ipu_pool *pool, uint32_t part) {
  return (int32_t)((int64_t)pool->job->extent * part / pool->parts);
}

/* Takes half of what is left before `end`, rounded up; false where nothing is. */
static bool take(struct share *share, int32_t end, int32_t *first, int32_t *stop) {
  *first = atomic_load_explicit(&share->next, memory_order_relaxed);
  do {
    if (*first >= end) return false;
    *stop = *first + (end - *first + 1) / 2;
  } while (!atomic_compare_exchange_weak_explicit(&share->next, first, *stop, memory_order_relaxed,
                                                  memory_order_relaxed));
  return true;
}

/* What thread `rank` does of a job: its own share, then what is left of the others'. */
static int32_t run_shares(struct ipu_pool *pool, uint32_t rank) {
  const struct ipu_job *job = pool->job;
  void *scratch = pool->scratch + pool->scratch_stride * rank;
  int32_t result = 0, first, stop;
  for (uint32_t i = 0; i < pool->parts; i++) {
    uint32_t part = (rank + i) % pool->parts;
    int32_t end = share_begin(pool, part + 1);
    while (take(&pool->shares[part], end, &first, &stop)) {
      int32_t code = job->kernel(job->args, scratch, first, stop);
      if (result == 0) result = code;
    }
  }
  return result;
}

/* Waits until something other than `IDLE` is in the mailbox. */
static void wait_for_mail(struct worker *worker) {
  for (int i = 0; i < SPINS + YIELDS; i++) {
    if (atomic_load_explicit(&worker->mailbox, memory_order_relaxed) != IDLE) return;
    if (i < SPINS) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
  pthread_mutex_lock(&worker->lock);
  atomic_store(&worker->asleep, true);
  while (atomic_load(&worker->mailbox) == IDLE) pthread_cond_wait(&worker->wake, &worker->lock);
  atomic_store(&worker->asleep, false);
  pthread_mutex_unlock(&worker->lock);
}

static void *work(void *argument) {
  struct worker *worker = argument;
  for (;;) {
    wait_for_mail(worker);
    int mail = POSTED;
    if (atomic_compare_exchange_strong_explicit(&worker->mailbox, &mail, TAKEN, memory_order_acquire,
                                                memory_order_relaxed)) {
      worker->result = run_shares(worker->pool, worker->rank);
      atomic_store_explicit(&worker->mailbox, IDLE, memory_order_release);
    } else if (mail == QUIT) {
      return NULL;
    }
  }
}

static void post(struct worker *worker, int mail) {
  atomic_store(&worker->mailbox, mail);
  if (atomic_load(&worker->asleep)) {
    pthread_mutex_lock(&worker->lock);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->lock);
  }
}

/* Ends the worker's part in a job: at once if it has not begun. */
static int32_t finish(struct worker *worker) {
  int mail = POSTED;
  if (atomic_compare_exchange_strong_explicit(&worker->mailbox, &mail, IDLE, memory_order_relaxed,
                                              memory_order_relaxed)) {
    return 0;
  }
  for (int i = 0; atomic_load_explicit(&worker->mailbox, memory_order_acquire) != IDLE; i++) {
    if (i < SPINS) {
      pause_cpu();
    } else {
      sched_yield();
    }
  }
  return worker->result;
}

void ipu_pool_enter(struct ipu_pool *pool) {
  if (pool->started == 0 || getpid() == pool->process) return;
  pool->threads = 1;
  pool->started = 0;
}

int32_t ipu_pool_run(struct ipu_pool *pool, const struct ipu_job *job) {
  uint32_t worth = (uint32_t)(job->extent / job->grain);
  uint32_t parts = worth < pool->threads ? worth : pool->threads;
  if (parts <= 1) return job->extent ? job->kernel(job->args, pool->scratch, 0, job->extent) : 0;
  pool->job = job;
  pool->parts = parts;
  for (uint32_t i = 0; i < parts; i++) {
    atomic_store_explicit(&pool->shares[i].next, share_begin(pool, i), memory_order_relaxed);
  }
  for (uint32_t i = 1; i < parts; i++) post(&pool->workers[i - 1], POSTED);
  int32_t result = run_shares(pool, 0);
  for (uint32_t i = 1; i < parts; i++) {
    int32_t other = finish(&pool->workers[i - 1]);
    if (result == 0) result = other;
  }
  return result;
}

/* Starts the worker's thread with all signals blocked but those of faults, which a blocked one would turn into a death
 * without a word: the others belong to the program's own threads. */
static bool start_thread(struct worker *worker) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
  pthread_attr_t attributes;
  sigset_t all, before;
  if (pthread_attr_init(&attributes) != 0) return false;
  sigfillset(&all);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&all, faults[i]);
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
  void *workers = NULL, *shares = NULL;
  if (!created || (threads > 1 && (posix_memalign(&workers, CACHE_LINE, (threads - 1) * sizeof(struct worker)) != 0 ||
                                   posix_memalign(&shares, CACHE_LINE, threads * sizeof(struct share)) != 0))) {
    free(workers);
    free(created);
    return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for %u threads", threads);
  }
  created->threads = threads;
  created->process = getpid();
  created->scratch = scratch;
  created->scratch_stride = scratch_stride;
  created->workers = workers;
  created->shares = shares;
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
  ipu_pool_enter(pool);
  for (uint32_t i = 0; i < pool->started; i++) post(&pool->workers[i], QUIT);
  for (uint32_t i = 0; i < pool->started; i++) {
    pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->workers[i].wake);
    pthread_mutex_destroy(&pool->workers[i].lock);
  }
  free(pool->shares);
  free(pool->workers);
  free(pool);
}
