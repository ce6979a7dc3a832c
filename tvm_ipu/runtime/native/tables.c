/* Checks the records of an image and decodes them. Nothing in a record is used before it has been checked. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static tvm_ipu_status bad(tvm_ipu_error *error, const char *what, uint64_t index) {
  return ipu_fail(error, TVM_IPU_ERROR_FORMAT, IPU_INCONSISTENT, "%s %llu has a field out of range", what,
                  (unsigned long long)index);
}

static bool range_inside(uint64_t begin, uint64_t length, uint64_t limit) {
  return begin <= limit && length <= limit - begin;
}

const char *ipu_image_string(const tvm_ipu_image *image, uint32_t offset) {
  const struct ipu_view *strings = &image->sections[IPU_SECTION_STRINGS];
  return offset < strings->size ? (const char *)strings->data + offset : NULL;
}

static void *allocate(size_t count, size_t size) {
  return calloc(count ? count : 1, size); /* NULL always means that there is no memory */
}

static tvm_ipu_status read_dims(tvm_ipu_image *image, tvm_ipu_error *error) {
  const struct ipu_view *view = &image->sections[IPU_SECTION_DIMS];
  for (uint32_t i = 0; i < view->count; i++) {
    image->dims[i] = IPU_RECORD(view, struct ipu_dim, i)->extent;
    if (image->dims[i] < 0) return bad(error, "dimension", i);
  }
  return TVM_IPU_OK;
}

/* Bytes of a dense tensor; false if they do not fit 64 bits. */
static bool tensor_bytes(const int64_t *dims, uint32_t rank, size_t item, uint64_t *bytes) {
  *bytes = item;
  for (uint32_t i = 0; i < rank; i++) {
    if (dims[i] == 0) {
      *bytes = 0;
      return true;
    }
  }
  for (uint32_t i = 0; i < rank; i++) {
    if (__builtin_mul_overflow(*bytes, (uint64_t)dims[i], bytes)) return false;
  }
  return true;
}

static tvm_ipu_status read_tensors(tvm_ipu_image *image, tvm_ipu_error *error) {
  const struct ipu_view *view = &image->sections[IPU_SECTION_TENSORS];
  uint32_t dim_count = image->sections[IPU_SECTION_DIMS].count;
  for (uint32_t i = 0; i < view->count; i++) {
    const struct ipu_tensor *record = IPU_RECORD(view, struct ipu_tensor, i);
    tvm_ipu_tensor *tensor = &image->tensors[i];
    uint64_t nbytes;
    tensor->name = ipu_image_string(image, record->name);
    tensor->dtype = (tvm_ipu_dtype)record->dtype;
    size_t item = tvm_ipu_dtype_size(tensor->dtype);
    tensor->format = ipu_image_string(image, record->format);
    memcpy(&tensor->scale, &record->scale, sizeof tensor->scale);
    tensor->zero = record->zero;
    if (!tensor->name || !tensor->format || item == 0 || !range_inside(record->dims_begin, record->rank, dim_count)) {
      return bad(error, "tensor", i);
    }
    tensor->rank = record->rank;
    tensor->shape = image->dims + record->dims_begin;
    if (!tensor_bytes(tensor->shape, tensor->rank, item, &nbytes) || nbytes != record->nbytes || nbytes > SIZE_MAX) {
      return bad(error, "tensor", i);
    }
    tensor->nbytes = (size_t)nbytes;
  }
  return TVM_IPU_OK;
}

static tvm_ipu_status read_calls(tvm_ipu_image *image, tvm_ipu_error *error) {
  const struct ipu_view *view = &image->sections[IPU_SECTION_CALLS];
  const struct ipu_view *kernels = &image->sections[IPU_SECTION_KERNELS];
  uint64_t code_size = image->sections[IPU_SECTION_CODE].size;
  for (uint32_t i = 0; i < kernels->count; i++) {
    const struct ipu_kernel *kernel = IPU_RECORD(kernels, struct ipu_kernel, i);
    if (!ipu_image_string(image, kernel->name) || kernel->offset >= code_size) return bad(error, "kernel", i);
  }
  for (uint32_t i = 0; i < view->count; i++) {
    const struct ipu_call *record = IPU_RECORD(view, struct ipu_call, i);
    tvm_ipu_call *call = &image->calls[i];
    if (record->kernel >= kernels->count ||
        !range_inside(record->arg_begin, record->arg_count, image->sections[IPU_SECTION_ARGS].count) ||
        record->extent < 0 || record->grain < 1) {
      return bad(error, "call", i);
    }
    call->kernel = ipu_image_string(image, IPU_RECORD(kernels, struct ipu_kernel, record->kernel)->name);
    call->layer = ipu_image_string(image, record->layer);
    call->op = ipu_image_string(image, record->op);
    call->template_name = ipu_image_string(image, record->template);
    if (!call->layer || !call->op || !call->template_name) return bad(error, "call", i);
    call->flops = record->flops;
    call->bytes = record->bytes;
    call->extent = record->extent;
    call->grain = record->grain;
  }
  return TVM_IPU_OK;
}

/* True if the argument's range lies inside its tensor or memory. */
static bool arg_inside(const tvm_ipu_image *image, const tvm_ipu_plan *plan, const struct ipu_arg *arg) {
  uint64_t limit;
  switch (arg->space) {
    case IPU_SPACE_INPUT:
      if (arg->index >= plan->input_count) return false;
      limit = plan->inputs[arg->index].nbytes;
      break;
    case IPU_SPACE_OUTPUT:
      if (arg->index >= plan->output_count) return false;
      limit = plan->outputs[arg->index].nbytes;
      break;
    case IPU_SPACE_ARENA:
      limit = plan->arena_size;
      break;
    case IPU_SPACE_WEIGHTS:
      limit = image->sections[IPU_SECTION_WEIGHTS].size;
      break;
    case IPU_SPACE_CONSTS:
      limit = image->sections[IPU_SECTION_CONSTS].size;
      break;
    default:
      return false;
  }
  return range_inside(arg->offset, arg->size, limit);
}

/* Every tensor of the plan lies in the arena, at an aligned place. */
static bool tensors_placed(const tvm_ipu_image *image, uint32_t begin, uint32_t count, uint64_t arena_size) {
  const struct ipu_view *view = &image->sections[IPU_SECTION_TENSORS];
  for (uint32_t i = begin; i < begin + count; i++) {
    const struct ipu_tensor *record = IPU_RECORD(view, struct ipu_tensor, i);
    if (record->arena_offset % TVM_IPU_ALIGNMENT != 0) return false;
    if (!range_inside(record->arena_offset, record->nbytes, arena_size)) return false;
  }
  return true;
}

static tvm_ipu_status read_plan(tvm_ipu_image *image, uint32_t index, tvm_ipu_error *error) {
  const struct ipu_plan *record = IPU_RECORD(&image->sections[IPU_SECTION_PLANS], struct ipu_plan, index);
  const struct ipu_view *calls = &image->sections[IPU_SECTION_CALLS];
  const struct ipu_view *args = &image->sections[IPU_SECTION_ARGS];
  uint32_t tensor_count = image->sections[IPU_SECTION_TENSORS].count;
  if (!range_inside(record->input_begin, record->input_count, tensor_count) ||
      !range_inside(record->output_begin, record->output_count, tensor_count) ||
      !range_inside(record->call_begin, record->call_count, calls->count) || record->arena_size > SIZE_MAX / 2 ||
      record->scratch_size > SIZE_MAX / 2 ||
      !tensors_placed(image, record->input_begin, record->input_count, record->arena_size) ||
      !tensors_placed(image, record->output_begin, record->output_count, record->arena_size)) {
    return bad(error, "plan", index);
  }
  tvm_ipu_plan *plan = &image->plans[index];
  plan->inputs = image->tensors + record->input_begin;
  plan->outputs = image->tensors + record->output_begin;
  plan->calls = image->calls + record->call_begin;
  plan->input_count = record->input_count;
  plan->output_count = record->output_count;
  plan->call_count = record->call_count;
  plan->arena_size = (size_t)record->arena_size;
  plan->scratch_size = (size_t)record->scratch_size;
  for (uint32_t i = record->call_begin; i < record->call_begin + record->call_count; i++) {
    const struct ipu_call *call = IPU_RECORD(calls, struct ipu_call, i);
    for (uint32_t j = call->arg_begin; j < call->arg_begin + call->arg_count; j++) {
      if (!arg_inside(image, plan, IPU_RECORD(args, struct ipu_arg, j))) return bad(error, "argument", j);
    }
  }
  return TVM_IPU_OK;
}

tvm_ipu_status ipu_tables_read(tvm_ipu_image *image, tvm_ipu_error *error) {
  const struct ipu_view *strings = &image->sections[IPU_SECTION_STRINGS];
  image->plan_count = image->sections[IPU_SECTION_PLANS].count;
  if (strings->size == 0 || strings->data[strings->size - 1] != 0) return bad(error, "section", IPU_SECTION_STRINGS);
  if (image->plan_count == 0) return bad(error, "section", IPU_SECTION_PLANS);
  if (image->sections[IPU_SECTION_TARGET].count != 1) return bad(error, "section", IPU_SECTION_TARGET);
  image->dims = allocate(image->sections[IPU_SECTION_DIMS].count, sizeof *image->dims);
  image->tensors = allocate(image->sections[IPU_SECTION_TENSORS].count, sizeof *image->tensors);
  image->calls = allocate(image->sections[IPU_SECTION_CALLS].count, sizeof *image->calls);
  image->plans = allocate(image->plan_count, sizeof *image->plans);
  if (!image->dims || !image->tensors || !image->calls || !image->plans) {
    return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for the tables of the image");
  }
  tvm_ipu_status status = read_dims(image, error);
  if (!status) status = read_tensors(image, error);
  if (!status) status = read_calls(image, error);
  for (uint32_t i = 0; !status && i < image->plan_count; i++) status = read_plan(image, i, error);
  return status;
}
