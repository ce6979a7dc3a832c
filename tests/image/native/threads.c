/* threads IMAGE: eight threads with a session each on one image get the same bytes; two threads on one session are told
 * apart. Built with TSan. The image is the sample of image_kit.py, n = 1000. */
#include <pthread.h>

#include "check.h"

enum { THREADS = 8, RUNS = 100, N = 1000 };

static tvm_ipu_image *image;
static float input[N], expected[N];

static void *run_own_session(void *rank) {
  tvm_ipu_error error;
  tvm_ipu_session *session;
  uint32_t threads = 1 + (uint32_t)(uintptr_t)rank % 3;
  CHECK(!tvm_ipu_session_create(image, 0, threads, &session, &error));
  for (int i = 0; i < RUNS; i++) {
    float output[N] = {0};
    CHECK(!tvm_ipu_session_set_input(session, 0, input, sizeof input, &error));
    CHECK(!tvm_ipu_session_run(session, &error));
    CHECK(!tvm_ipu_session_get_output(session, 0, output, sizeof output, &error));
    CHECK(!memcmp(output, expected, sizeof output));
  }
  tvm_ipu_session_destroy(session);
  return NULL;
}

static void *run_shared_session(void *session) {
  tvm_ipu_error error;
  for (int i = 0; i < RUNS; i++) {
    tvm_ipu_status status = tvm_ipu_session_run(session, &error);
    CHECK(status == TVM_IPU_OK || status == TVM_IPU_ERROR_BUSY);
  }
  return NULL;
}

static void run_threads(int count, void *(*body)(void *), void *shared) {
  pthread_t threads[THREADS];
  for (int i = 0; i < count; i++) {
    CHECK(!pthread_create(&threads[i], NULL, body, shared ? shared : (void *)(uintptr_t)i));
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  tvm_ipu_error error;
  tvm_ipu_session *session;
  CHECK(!tvm_ipu_image_open_file(argv[1], 0, &image, &error));
  for (int i = 0; i < N; i++) {
    input[i] = (float)(i * i % 101);
    expected[i] = 2 * (input[i] + (float)i);
  }
  run_threads(THREADS, run_own_session, NULL);
  CHECK(!tvm_ipu_session_create(image, 0, 2, &session, &error));
  run_threads(2, run_shared_session, session);
  tvm_ipu_session_destroy(session);
  tvm_ipu_image_close(image);
  puts("ok");
  return 0;
}
