/* api IMAGE: the C API on the sample image of image_kit.py: y = 2 (x + i) for n = 1000 in plan 0 and 2000 in plan 1. */
#include "check.h"

static tvm_ipu_error error;

static void check_results(const float *x, const float *y, const float *z, int n) {
  for (int i = 0; i < n; i++) {
    float expected = 2 * (x[i] + (float)i);
    CHECK(y[i] == expected && z[n - 1 - i] == expected);
  }
}

static void test_queries(const tvm_ipu_image *image) {
  size_t size;
  CHECK(tvm_ipu_api_version() == TVM_IPU_API_VERSION);
  CHECK(tvm_ipu_image_plan_count(image) == 2);
  CHECK(!tvm_ipu_image_plan(image, 2));
  CHECK(!strcmp(tvm_ipu_image_target(image), "test-host"));
  const char *metadata = tvm_ipu_image_metadata(image, &size);
  CHECK(size > 2 && metadata[0] == '{' && metadata[size - 1] == '}');
  const tvm_ipu_plan *plan = tvm_ipu_image_plan(image, 1);
  CHECK(plan->input_count == 1 && plan->output_count == 2 && plan->call_count == 3);
  CHECK(!strcmp(plan->inputs[0].name, "x") && plan->inputs[0].dtype == TVM_IPU_FLOAT32);
  CHECK(plan->inputs[0].rank == 1 && plan->inputs[0].shape[0] == 2000 && plan->inputs[0].nbytes == 8000);
  CHECK(plan->outputs[1].rank == 2 && plan->outputs[1].shape[0] == 1 && plan->outputs[1].shape[1] == 2000);
  CHECK(!strcmp(plan->calls[1].op, "twice") && !strcmp(plan->calls[1].layer, "/twice"));
  CHECK(plan->calls[1].extent == 2000 && plan->calls[1].grain == 16);
  CHECK(tvm_ipu_dtype_size(TVM_IPU_BFLOAT16) == 2 && tvm_ipu_dtype_size((tvm_ipu_dtype)99) == 0);
  CHECK(!strcmp(tvm_ipu_dtype_name(TVM_IPU_INT8), "int8"));
  CHECK(!strcmp(tvm_ipu_dtype_name((tvm_ipu_dtype)0), "unknown"));
  CHECK(tvm_ipu_host_has_feature("no-such-feature") == -1);
}

static void test_run(tvm_ipu_session *session, int n) {
  float *x = tvm_ipu_session_input(session, 0);
  uint64_t ns[10];
  CHECK((uintptr_t)x % TVM_IPU_ALIGNMENT == 0);
  for (int i = 0; i < n; i++) x[i] = (float)(i % 7);
  CHECK(!tvm_ipu_session_run(session, &error));
  check_results(x, tvm_ipu_session_output(session, 0), tvm_ipu_session_output(session, 1), n);
  CHECK(!tvm_ipu_session_time_runs(session, 10, ns, &error) && ns[9] > 0);
  CHECK(!tvm_ipu_session_profile(session, ns, &error) && ns[0] + ns[1] + ns[2] > 0);
}

static void test_copy(tvm_ipu_session *session, int n) {
  size_t nbytes = (size_t)n * sizeof(float);
  float *x = malloc(nbytes), *y = malloc(nbytes), *z = malloc(nbytes);
  for (int i = 0; i < n; i++) x[i] = (float)-i;
  CHECK(!tvm_ipu_session_set_input(session, 0, x, nbytes, &error));
  CHECK(!tvm_ipu_session_run(session, &error));
  CHECK(!tvm_ipu_session_get_output(session, 0, y, nbytes, &error));
  CHECK(!tvm_ipu_session_get_output(session, 1, z, nbytes, &error));
  check_results(x, y, z, n);
  CHECK(tvm_ipu_session_set_input(session, 0, x, nbytes - 4, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(!strcmp(error.message, "input 'x' has 4000 bytes, not 3996"));
  CHECK(tvm_ipu_session_set_input(session, 1, x, nbytes, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(tvm_ipu_session_get_output(session, 2, y, nbytes, NULL) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(!tvm_ipu_session_input(session, 1) && !tvm_ipu_session_output(session, 2));
  free(x);
  free(y);
  free(z);
}

static void test_bind(tvm_ipu_session *session, int n) {
  size_t nbytes = (size_t)n * sizeof(float);
  void *memory = NULL;
  CHECK(posix_memalign(&memory, TVM_IPU_ALIGNMENT, 2 * nbytes + 128) == 0);
  float *x = memory, *y = x + (nbytes + 63) / 64 * 16;
  for (int i = 0; i < n; i++) x[i] = (float)(3 * i);
  CHECK(!tvm_ipu_session_bind_input(session, 0, x, nbytes, &error));
  CHECK(!tvm_ipu_session_bind_output(session, 0, y, nbytes, &error));
  CHECK(tvm_ipu_session_input(session, 0) == x && tvm_ipu_session_output(session, 0) == y);
  CHECK(!tvm_ipu_session_run(session, &error));
  check_results(x, y, tvm_ipu_session_output(session, 1), n);
  CHECK(tvm_ipu_session_set_input(session, 0, x, nbytes, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(tvm_ipu_session_bind_input(session, 0, x + 1, nbytes, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(strstr(error.message, "multiple of 64 bytes") && error.hint[0]);
  CHECK(tvm_ipu_session_bind_output(session, 0, y, nbytes + 1, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(tvm_ipu_session_bind_output(session, 7, y, nbytes, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(tvm_ipu_session_input(session, 0) == x); /* a refused binding changes nothing */
  CHECK(!tvm_ipu_session_bind_input(session, 0, NULL, 0, &error));
  CHECK(!tvm_ipu_session_bind_output(session, 0, NULL, 0, &error));
  free(memory);
  test_run(session, n);
}

static void test_wrong_arguments(tvm_ipu_image *image, const char *path) {
  tvm_ipu_session *session = (tvm_ipu_session *)image;
  tvm_ipu_image *other = image;
  CHECK(tvm_ipu_session_create(image, 2, 1, &session, &error) == TVM_IPU_ERROR_ARGUMENT && !session);
  CHECK(tvm_ipu_session_create(image, 0, 0, &session, &error) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(tvm_ipu_session_create(image, 0, TVM_IPU_MAX_THREADS + 1, &session, NULL) == TVM_IPU_ERROR_ARGUMENT);
  CHECK(tvm_ipu_image_open_memory(NULL, 0, 0, &other, &error) == TVM_IPU_ERROR_ARGUMENT && !other);
  CHECK(tvm_ipu_image_open_file("/nonexistent/file", 0, &other, &error) == TVM_IPU_ERROR_IO);
  CHECK(tvm_ipu_image_open_file("/", 0, &other, &error) == TVM_IPU_ERROR_IO);
  CHECK(tvm_ipu_image_open_file("/dev/null", 0, &other, NULL) == TVM_IPU_ERROR_IO);
  CHECK(tvm_ipu_image_open_file(__FILE__, 0, &other, &error) == TVM_IPU_ERROR_FORMAT);
  CHECK(strstr(error.message, __FILE__) == error.message && strstr(error.message, "not an offline image"));
  CHECK(!tvm_ipu_image_open_file(path, TVM_IPU_VERIFY_WEIGHTS, &other, &error));
  tvm_ipu_image_close(other);
  tvm_ipu_image_close(NULL);
  tvm_ipu_session_destroy(NULL);
}

static void test_memory(const char *path, size_t misalignment) {
  size_t size;
  uint8_t *file = read_file(path, &size), *bytes = malloc(size + 2 * TVM_IPU_ALIGNMENT);
  uint8_t *data = bytes + (TVM_IPU_ALIGNMENT - (uintptr_t)bytes % TVM_IPU_ALIGNMENT) + misalignment;
  memcpy(data, file, size);
  free(file);
  tvm_ipu_image *image;
  tvm_ipu_session *session;
  CHECK(!tvm_ipu_image_open_memory(data, size, 0, &image, &error));
  if (misalignment) free(bytes); /* the library has made its own copy */
  CHECK(!tvm_ipu_session_create(image, 0, 3, &session, &error));
  tvm_ipu_image_close(image);
  test_run(session, 1000);
  tvm_ipu_session_destroy(session);
  if (!misalignment) free(bytes);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  tvm_ipu_image *image;
  tvm_ipu_session *one, *two;
  CHECK(!tvm_ipu_image_open_file(argv[1], 0, &image, &error));
  test_queries(image);
  test_wrong_arguments(image, argv[1]);
  CHECK(!tvm_ipu_session_create(image, 0, 1, &one, &error));
  CHECK(!tvm_ipu_session_create(image, 1, 4, &two, &error));
  CHECK(tvm_ipu_session_plan(two) == tvm_ipu_image_plan(image, 1));
  tvm_ipu_image_close(image); /* the sessions keep it */
  CHECK(((float *)tvm_ipu_session_input(one, 0))[999] == 0);
  test_run(one, 1000);
  test_run(two, 2000);
  test_copy(one, 1000);
  test_bind(one, 1000);
  test_bind(two, 2000);
  tvm_ipu_session_destroy(one);
  tvm_ipu_session_destroy(two);
  test_memory(argv[1], 0);
  test_memory(argv[1], 4);
  puts("ok");
  return 0;
}
