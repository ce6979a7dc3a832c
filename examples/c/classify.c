/* Runs an image classifier and prints its five best classes.
 *
 *   python -m tvm_ipu.runtime.build build/native
 *   cc -std=c11 -I tvm_ipu/runtime/native examples/c/classify.c build/native/libtvm_ipu.a -pthread -o classify
 *   ./classify mobilenet.img picture.bin
 *
 * picture.bin holds the first input as raw bytes: float32, shape and preprocessing as the model wants them.
 */
#include <stdio.h>

#include "tvm_ipu.h"

static int fail(const tvm_ipu_error *error) {
  fprintf(stderr, "error: %s\n", error->message);
  if (error->hint[0]) fprintf(stderr, "hint: %s\n", error->hint);
  return 1;
}

static int read_picture(const char *path, void *data, size_t nbytes) {
  FILE *file = fopen(path, "rb");
  size_t got = file ? fread(data, 1, nbytes, file) : 0;
  if (file) fclose(file);
  if (got == nbytes) return 0;
  fprintf(stderr, "error: %s: expected %llu bytes\n", path, (unsigned long long)nbytes);
  return 1;
}

static void print_best(const float *scores, size_t count, int places) {
  float limit = 0;
  for (int place = 0; place < places && (size_t)place < count; place++) {
    size_t best = count;
    for (size_t i = 0; i < count; i++) {
      if (place > 0 && scores[i] >= limit) continue;
      if (best == count || scores[i] > scores[best]) best = i;
    }
    if (best == count) return; /* the rest are ties */
    limit = scores[best];
    printf("class %llu: %g\n", (unsigned long long)best, (double)limit);
  }
}

int main(int argc, char **argv) {
  tvm_ipu_error error;
  tvm_ipu_image *image;
  tvm_ipu_session *session;
  if (argc != 3) {
    fprintf(stderr, "usage: classify IMAGE PICTURE\n");
    return 1;
  }
  if (tvm_ipu_image_open_file(argv[1], 0, &image, &error)) return fail(&error);
  if (tvm_ipu_session_create(image, 0, 1, &session, &error)) return fail(&error);
  tvm_ipu_image_close(image); /* the session keeps it alive */

  const tvm_ipu_plan *plan = tvm_ipu_session_plan(session);
  int result = 1;
  if (plan->input_count != 1 || plan->output_count < 1 || plan->outputs[0].dtype != TVM_IPU_FLOAT32) {
    fprintf(stderr, "error: %s is no classifier with float32 scores\n", argv[1]);
  } else if (read_picture(argv[2], tvm_ipu_session_input(session, 0), plan->inputs[0].nbytes) == 0) {
    if (tvm_ipu_session_run(session, &error)) {
      fail(&error);
    } else {
      print_best(tvm_ipu_session_output(session, 0), plan->outputs[0].nbytes / sizeof(float), 5);
      result = 0;
    }
  }
  tvm_ipu_session_destroy(session);
  return result;
}
