/* Runs two images side by side for the tuner, behind a function that TVM can call: in this process, or on a board
 * through TVM's RPC server. The runtime is linked in, so a server needs nothing but TVM.
 *
 *   measure(threads, evict, message, image a, image b, times a, times b, inputs..., outputs of b...) -> 0, or 1
 *
 * All but the two numbers are tensors of bytes. `evict` bytes of other memory are read before each run, so that weights
 * have to come from where they would come from in the model. `times` is an array of uint64 [runs][calls], nanoseconds
 * of each kernel call; a and b take turns. After a failure `message` holds its text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

#include "tvm_ipu.h"

enum { THREADS, EVICT, MESSAGE, IMAGE_A, IMAGE_B, TIMES_A, TIMES_B, FIRST_INPUT, LINE = 64 };

struct side {
  tvm_ipu_image *image;
  tvm_ipu_session *session;
  const tvm_ipu_plan *plan;
  uint64_t *times;
  size_t runs;
};

static const DLTensor *tensor(const TVMFFIAny *value) {
  if (value->type_index == kTVMFFIDLTensorPtr) return value->v_ptr;
  return (const DLTensor *)((const char *)value->v_obj + sizeof(TVMFFIObject));
}

static void *data(const TVMFFIAny *value) {
  const DLTensor *t = tensor(value);
  return (char *)t->data + t->byte_offset;
}

static size_t size(const TVMFFIAny *value) { return (size_t)tensor(value)->shape[0]; }

static void evict(const unsigned char *memory, size_t bytes) {
  unsigned sum = 0;
  for (size_t i = 0; i < bytes; i += LINE) sum += memory[i];
  volatile unsigned sink = sum;
  (void)sink;
}

static int open_side(struct side *side, const TVMFFIAny *image, const TVMFFIAny *times, uint32_t threads,
                     tvm_ipu_error *error) {
  int status = tvm_ipu_image_open_memory(data(image), size(image), 0, &side->image, error);
  if (!status) status = tvm_ipu_session_create(side->image, 0, threads, &side->session, error);
  if (status) return status;
  side->plan = tvm_ipu_session_plan(side->session);
  side->times = data(times);
  side->runs = size(times) / sizeof(uint64_t) / side->plan->call_count;
  return 0;
}

static void close_side(struct side *side) {
  tvm_ipu_session_destroy(side->session);
  tvm_ipu_image_close(side->image);
}

static int bind_inputs(struct side *side, const TVMFFIAny *args, tvm_ipu_error *error) {
  int status = 0;
  for (uint32_t i = 0; i < side->plan->input_count && !status; i++) {
    const TVMFFIAny *input = &args[FIRST_INPUT + i];
    status = tvm_ipu_session_bind_input(side->session, i, data(input), size(input), error);
  }
  return status;
}

static int get_outputs(struct side *side, const TVMFFIAny *args, tvm_ipu_error *error) {
  int status = 0;
  for (uint32_t i = 0; i < side->plan->output_count && !status; i++) {
    const TVMFFIAny *output = &args[FIRST_INPUT + side->plan->input_count + i];
    status = tvm_ipu_session_get_output(side->session, i, data(output), size(output), error);
  }
  return status;
}

static int time_sides(struct side sides[2], const unsigned char *memory, size_t bytes, tvm_ipu_error *error) {
  int status = 0;
  for (int i = 0; i < 2 && !status; i++) status = tvm_ipu_session_run(sides[i].session, error);
  for (size_t run = 0; run < sides[0].runs && !status; run++) {
    for (size_t turn = 0; turn < 2 && !status; turn++) {
      struct side *side = &sides[(run + turn) % 2];
      evict(memory, bytes);
      status = tvm_ipu_session_profile(side->session, side->times + run * side->plan->call_count, error);
    }
  }
  return status;
}

static int measure(const TVMFFIAny *args, int32_t count, tvm_ipu_error *error) {
  struct side sides[2] = {{0}};
  size_t bytes = (size_t)args[EVICT].v_int64;
  unsigned char *memory = malloc(bytes + 1);
  int status = !memory;
  if (memory) memset(memory, 1, bytes + 1);
  for (int i = 0; i < 2 && !status; i++)
    status = open_side(&sides[i], &args[IMAGE_A + i], &args[TIMES_A + i], (uint32_t)args[THREADS].v_int64, error);
  if (!status && count != (int32_t)(FIRST_INPUT + sides[1].plan->input_count + sides[1].plan->output_count)) {
    snprintf(error->message, sizeof error->message, "%d arguments do not fit the image", (int)count);
    status = 1;
  }
  for (int i = 0; i < 2 && !status; i++) status = bind_inputs(&sides[i], args, error);
  if (!status) status = time_sides(sides, memory, bytes, error);
  if (!status) status = get_outputs(&sides[1], args, error);
  for (int i = 0; i < 2; i++) close_side(&sides[i]);
  free(memory);
  return status;
}

/* TVM's calling convention; the exported name is `tvm_ipu_measure`. */
__attribute__((visibility("default"))) int __tvm_ffi_tvm_ipu_measure(void *self, const TVMFFIAny *args, int32_t count,
                                                                     TVMFFIAny *result) {
  (void)self;
  tvm_ipu_error error = {0};
  int status = count <= FIRST_INPUT || measure(args, count, &error);
  if (status && count > FIRST_INPUT) {
    size_t room = size(&args[MESSAGE]);
    if (room) snprintf(data(&args[MESSAGE]), room, "%s", error.message[0] ? error.message : "no memory");
  }
  result->type_index = kTVMFFIInt;
  result->v_int64 = status;
  return 0;
}
