/* allocations IMAGE: nothing is allocated by a run, the first one included, nor by what surrounds it. The program counts
 * by taking the place of the C library's allocator and of mmap, with glibc's own behind it. */
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

enum { N = 1000, RUNS = 50 };

static atomic_int allocations;

void *malloc(size_t size) {
  atomic_fetch_add(&allocations, 1);
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  atomic_fetch_add(&allocations, 1);
  return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
  atomic_fetch_add(&allocations, 1);
  return __libc_realloc(memory, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  atomic_fetch_add(&allocations, 1);
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : 12;
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) {
  atomic_fetch_add(&allocations, 1);
  return (void *)syscall(SYS_mmap, address, size, protection, flags, file, offset);
}

static void use(tvm_ipu_session *session) {
  static _Alignas(TVM_IPU_ALIGNMENT) float x[N], y[N];
  tvm_ipu_error error;
  uint64_t ns[RUNS];
  int before = atomic_load(&allocations);
  for (int i = 0; i < RUNS; i++) {
    CHECK(!tvm_ipu_session_set_input(session, 0, x, sizeof x, &error));
    CHECK(!tvm_ipu_session_run(session, &error));
    CHECK(!tvm_ipu_session_get_output(session, 0, y, sizeof y, &error));
  }
  CHECK(!tvm_ipu_session_bind_input(session, 0, x, sizeof x, &error));
  CHECK(!tvm_ipu_session_bind_output(session, 0, y, sizeof y, &error));
  CHECK(!tvm_ipu_session_time_runs(session, RUNS, ns, &error));
  CHECK(!tvm_ipu_session_profile(session, ns, &error));
  CHECK(tvm_ipu_session_set_input(session, 0, x, 1, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(atomic_load(&allocations) == before);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  tvm_ipu_error error;
  tvm_ipu_image *image;
  CHECK(!tvm_ipu_image_open_file(argv[1], 0, &image, &error));
  for (uint32_t threads = 1; threads <= 4; threads++) {
    tvm_ipu_session *session;
    int before = atomic_load(&allocations);
    CHECK(!tvm_ipu_session_create(image, 0, threads, &session, &error));
    CHECK(atomic_load(&allocations) > before); /* they are counted */
    use(session);
    tvm_ipu_session_destroy(session);
  }
  tvm_ipu_image_close(image);
  puts("ok");
  return 0;
}
