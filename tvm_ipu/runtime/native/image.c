/* Opening, querying and closing images. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define SAME(name) _Static_assert((int)TVM_IPU_##name == (int)IPU_DTYPE_##name, "public and stored types differ")
SAME(BOOL);
SAME(INT8);
SAME(UINT8);
SAME(INT16);
SAME(UINT16);
SAME(INT32);
SAME(UINT32);
SAME(INT64);
SAME(UINT64);
SAME(FLOAT16);
SAME(BFLOAT16);
SAME(FLOAT32);
SAME(FLOAT64);
SAME(FLOAT8_E4M3FN);
SAME(FLOAT8_E4M3FNUZ);
SAME(FLOAT8_E5M2);
SAME(FLOAT8_E5M2FNUZ);
SAME(FLOAT8_E8M0FNU);
SAME(FLOAT4_E2M1FN);
SAME(INT4);
SAME(UINT4);
SAME(INT2);
SAME(UINT2);

static const struct {
  const char *name;
  size_t size;
} dtypes[] = {
    [TVM_IPU_BOOL] = {"bool", 1},       [TVM_IPU_INT8] = {"int8", 1},         [TVM_IPU_UINT8] = {"uint8", 1},
    [TVM_IPU_INT16] = {"int16", 2},     [TVM_IPU_UINT16] = {"uint16", 2},     [TVM_IPU_INT32] = {"int32", 4},
    [TVM_IPU_UINT32] = {"uint32", 4},   [TVM_IPU_INT64] = {"int64", 8},       [TVM_IPU_UINT64] = {"uint64", 8},
    [TVM_IPU_FLOAT16] = {"float16", 2}, [TVM_IPU_BFLOAT16] = {"bfloat16", 2}, [TVM_IPU_FLOAT32] = {"float32", 4},
    [TVM_IPU_FLOAT64] = {"float64", 8},
    [TVM_IPU_FLOAT8_E4M3FN] = {"float8_e4m3fn", 1},
    [TVM_IPU_FLOAT8_E4M3FNUZ] = {"float8_e4m3fnuz", 1},
    [TVM_IPU_FLOAT8_E5M2] = {"float8_e5m2", 1},
    [TVM_IPU_FLOAT8_E5M2FNUZ] = {"float8_e5m2fnuz", 1},
    [TVM_IPU_FLOAT8_E8M0FNU] = {"float8_e8m0fnu", 1},
    [TVM_IPU_FLOAT4_E2M1FN] = {"float4_e2m1fn", 1},
    [TVM_IPU_INT4] = {"int4", 1},
    [TVM_IPU_UINT4] = {"uint4", 1},
    [TVM_IPU_INT2] = {"int2", 1},
    [TVM_IPU_UINT2] = {"uint2", 1},
};

static bool known_dtype(uint32_t dtype) { return dtype < sizeof dtypes / sizeof *dtypes && dtypes[dtype].size; }

size_t tvm_ipu_dtype_size(tvm_ipu_dtype dtype) { return known_dtype(dtype) ? dtypes[dtype].size : 0; }

const char *tvm_ipu_dtype_name(tvm_ipu_dtype dtype) { return known_dtype(dtype) ? dtypes[dtype].name : "unknown"; }

uint32_t tvm_ipu_api_version(void) { return TVM_IPU_API_VERSION; }

static tvm_ipu_status check_target(const tvm_ipu_image *image, uint32_t flags, tvm_ipu_error *error) {
  const struct ipu_target *target = IPU_RECORD(&image->sections[IPU_SECTION_TARGET], struct ipu_target, 0);
  const char *name = ipu_image_string(image, target->name);
  const char *arch = ipu_image_string(image, target->arch);
  const char *required = ipu_image_string(image, target->requires);
  if (!name || !arch || !required) {
    return ipu_fail(error, TVM_IPU_ERROR_FORMAT, IPU_INCONSISTENT, "the target has a field out of range");
  }
  if (strcmp(arch, tvm_ipu_host_arch()) != 0 || target->pointer_bits != 8 * sizeof(void *)) {
    return ipu_fail(error, TVM_IPU_ERROR_ARCH, "compile the model with --target host on this machine",
                    "made for target %s (%s, %u bits), but this machine is %s, %u bits", name, arch,
                    target->pointer_bits, tvm_ipu_host_arch(), (unsigned)(8 * sizeof(void *)));
  }
  return flags & TVM_IPU_SKIP_CPU_CHECK ? TVM_IPU_OK : ipu_cpu_check(required, error);
}

static void free_image(tvm_ipu_image *image) {
  free(image->plans);
  free(image->calls);
  free(image->tensors);
  free(image->dims);
  ipu_memory_release(image->code_copy, image->sections[IPU_SECTION_CODE].size);
  if (image->mapped) ipu_memory_release((void *)(uintptr_t)image->data, image->size);
  ipu_memory_release(image->owned, image->size);
  free(image);
}

static tvm_ipu_status read_image(tvm_ipu_image *image, uint32_t flags, tvm_ipu_error *error) {
  tvm_ipu_status status = ipu_container_read(image->data, image->size, flags, image->sections, error);
  if (!status) status = ipu_tables_read(image, error);
  if (!status) status = check_target(image, flags, error);
  if (status) return status;
  const struct ipu_view *code = &image->sections[IPU_SECTION_CODE];
  if (code->size == 0) return TVM_IPU_OK; /* a plan without calls */
  image->code = ipu_memory_executable(code->data, code->size, image->mapped, &image->code_copy);
  if (image->code) return TVM_IPU_OK;
  return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "the system's security policy may forbid it",
                  "cannot make the %llu bytes of code executable", (unsigned long long)code->size);
}

static tvm_ipu_image *new_image(tvm_ipu_error *error) {
  tvm_ipu_image *image = calloc(1, sizeof *image);
  if (!image) {
    ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for an image");
    return NULL;
  }
  atomic_init(&image->references, 1);
  return image;
}

static tvm_ipu_status finish(tvm_ipu_image *opened, tvm_ipu_status status, tvm_ipu_image **image) {
  if (status) {
    free_image(opened);
  } else {
    *image = opened;
  }
  return status;
}

/* Puts `path: ` before the message, which names no file yet. */
static void name_file(tvm_ipu_error *error, const char *path) {
  if (!error) return;
  char message[sizeof error->message];
  memcpy(message, error->message, sizeof message);
  char hint[sizeof error->hint];
  memcpy(hint, error->hint, sizeof hint);
  ipu_fail(error, error->status, hint, "%s: %s", path, message);
}

tvm_ipu_status tvm_ipu_image_open_file(const char *path, uint32_t flags, tvm_ipu_image **image,
                                       tvm_ipu_error *error) {
  *image = NULL;
  tvm_ipu_image *opened = new_image(error);
  if (!opened) return TVM_IPU_ERROR_MEMORY;
  tvm_ipu_status status = ipu_memory_map_file(path, &opened->data, &opened->size, error);
  if (!status) {
    opened->mapped = true;
    status = read_image(opened, flags, error);
    if (status) name_file(error, path);
  }
  const struct ipu_view *weights = &opened->sections[IPU_SECTION_WEIGHTS];
  if (!status) ipu_memory_populate(weights->data, weights->size);
  return finish(opened, status, image);
}

tvm_ipu_status tvm_ipu_image_open_memory(const void *data, size_t size, uint32_t flags, tvm_ipu_image **image,
                                         tvm_ipu_error *error) {
  *image = NULL;
  if (!data || size > SIZE_MAX / 2) return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "", "no image in memory given");
  tvm_ipu_image *opened = new_image(error);
  if (!opened) return TVM_IPU_ERROR_MEMORY;
  opened->data = data;
  opened->size = size;
  if ((uintptr_t)data % TVM_IPU_ALIGNMENT != 0 && size != 0) {
    opened->owned = ipu_memory_reserve(size);
    if (!opened->owned) {
      return finish(opened, ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for a copy of the image"), image);
    }
    memcpy(opened->owned, data, size);
    opened->data = opened->owned;
  }
  return finish(opened, read_image(opened, flags, error), image);
}

void ipu_image_retain(tvm_ipu_image *image) { atomic_fetch_add_explicit(&image->references, 1, memory_order_relaxed); }

void tvm_ipu_image_close(tvm_ipu_image *image) {
  if (image && atomic_fetch_sub_explicit(&image->references, 1, memory_order_acq_rel) == 1) free_image(image);
}

uint32_t tvm_ipu_image_plan_count(const tvm_ipu_image *image) { return image->plan_count; }

const tvm_ipu_plan *tvm_ipu_image_plan(const tvm_ipu_image *image, uint32_t index) {
  return index < image->plan_count ? &image->plans[index] : NULL;
}

const char *tvm_ipu_image_target(const tvm_ipu_image *image) {
  return ipu_image_string(image, IPU_RECORD(&image->sections[IPU_SECTION_TARGET], struct ipu_target, 0)->name);
}

const char *tvm_ipu_image_metadata(const tvm_ipu_image *image, size_t *size) {
  const struct ipu_view *view = &image->sections[IPU_SECTION_METADATA];
  *size = view->size;
  return (const char *)view->data;
}
