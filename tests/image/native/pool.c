/* pool: every unit of a job is done once, whatever the threads are doing; results of one job are seen by the next. */
#include <sched.h>
#include <time.h>

#include "check.h"
#include "internal.h"

enum { THREADS = 6, MOST_UNITS = 200, JOBS = 4000 };

static int32_t counts[MOST_UNITS];
static uint8_t scratch[THREADS][64];

/* Adds 1 to each of its units, without atomics: two threads on one unit are a race. Unit 7 takes its time. */
static int32_t count_units(const uintptr_t *args, void *mine, int32_t begin, int32_t end) {
  int32_t *count = (int32_t *)args[0];
  ++*(uint8_t *)mine; /* private to the thread */
  for (int32_t unit = begin; unit < end; unit++) {
    if (unit == 7) sched_yield();
    count[unit]++;
  }
  return begin <= 150 && 150 < end ? 3 : 0;
}

int main(void) {
  struct ipu_pool *pool;
  tvm_ipu_error error;
  const uintptr_t args[] = {(uintptr_t)counts};
  const struct timespec nap = {0, 300000}; /* long enough for idle threads to fall asleep */
  CHECK(!ipu_pool_create(THREADS, scratch[0], sizeof scratch[0], &pool, &error));
  for (int i = 0; i < JOBS; i++) {
    int32_t extent = i * 7 % (MOST_UNITS + 1);
    const struct ipu_job job = {count_units, args, extent, 1 + i % 5};
    memset(counts, 0, sizeof counts);
    if (i % 100 == 0) nanosleep(&nap, NULL);
    CHECK(ipu_pool_run(pool, &job) == (extent > 150 ? 3 : 0));
    for (int32_t unit = 0; unit < MOST_UNITS; unit++) CHECK(counts[unit] == (unit < extent));
  }
  ipu_pool_destroy(pool);
  puts("ok");
  return 0;
}
