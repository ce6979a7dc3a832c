/* libFuzzer target of the image reader. The mutator repairs sizes and checksums, so that the checks behind them are
 * reached; the target then opens the image, creates a session for each plan and proves that every address that a
 * kernel would get lies inside its memory. The image's own code is never run. */
#include <stdio.h>

#include "../../tvm_ipu/runtime/native/session.c" /* to look into the session */

enum { BLOCK = 8, PLANS = 4 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;
static size_t scratch_size; /* of the plan that runs */

static void require(bool condition) {
  if (!condition) abort();
}

static bool inside(uintptr_t begin, uint64_t length, const uint8_t *memory, uint64_t size) {
  uintptr_t base = (uintptr_t)memory;
  return begin >= base && begin - base <= size && length <= size - (begin - base);
}

/* --- Mutation --- */

static void repair(uint8_t *data, size_t size) {
  struct ipu_header header;
  struct ipu_crc_tables crc;
  if (size < sizeof header) return;
  memcpy(&header, data, sizeof header);
  header.magic = IPU_MAGIC;
  header.version_major = IPU_VERSION_MAJOR;
  header.kind = IPU_KIND_IMAGE;
  header.file_size = size;
  ipu_crc_init(&crc);
  uint64_t begin = header.table_offset;
  for (uint32_t i = 0; i < header.section_count && i < IPU_MAX_SECTIONS; i++) {
    struct ipu_section entry;
    if (begin > size || begin + (i + 1) * sizeof entry > size) break;
    memcpy(&entry, data + begin + i * sizeof entry, sizeof entry);
    if (entry.offset > size || entry.size > size - entry.offset) continue;
    entry.crc32 = ipu_crc32(&crc, 0, data + entry.offset, (size_t)entry.size);
    memcpy(data + begin + i * sizeof entry, &entry, sizeof entry);
  }
  memcpy(data, &header, sizeof header);
  uint64_t table_size = (uint64_t)header.section_count * sizeof(struct ipu_section);
  if (begin <= size && table_size <= size - begin) {
    header.crc32 = ipu_crc32(&crc, ipu_crc32(&crc, 0, data, IPU_HEADER_CRC_OFFSET), data + begin, (size_t)table_size);
    memcpy(data, &header, sizeof header);
  }
}

static bool is_padding(const uint8_t *block) {
  static const uint8_t zeros[BLOCK];
  return memcmp(block, zeros, BLOCK) == 0;
}

/* Half of the mutations change one aligned field in place, which keeps the layout; few leave the checksums wrong.
 * Tables come first in a file, so a step towards the front leads out of padding. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  if (seed % 2 && size >= BLOCK) {
    size_t block = seed / 64 % (size / BLOCK) * BLOCK;
    for (int tries = 0; tries < 8 && is_padding(data + block); tries++) block = block / BLOCK / 2 * BLOCK;
    LLVMFuzzerMutate(data + block, BLOCK, BLOCK);
  } else {
    size = LLVMFuzzerMutate(data, size, max_size);
  }
  if (seed / 2 % 32 != 0) repair(data, size);
  return size;
}

/* --- The target --- */

static int32_t idle_kernel(const uintptr_t *args, void *scratch, int32_t begin, int32_t end) {
  (void)args;
  volatile uint8_t *bytes = scratch;
  if (scratch_size && begin < end) bytes[0] = bytes[scratch_size - 1] = 1;
  return 0;
}

static void check_args(const tvm_ipu_session *session) {
  const tvm_ipu_image *image = session->image;
  const struct ipu_view *sections = image->sections;
  const uintptr_t *slot = session->args;
  for (uint32_t i = 0; i < session->plan->call_count; i++) {
    const struct ipu_call *call = call_record(session, i);
    require(session->jobs[i].args == slot);
    require(inside((uintptr_t)session->jobs[i].kernel, 1, image->code, sections[IPU_SECTION_CODE].size));
    for (uint32_t j = 0; j < call->arg_count; j++, slot++) {
      const struct ipu_arg *arg = arg_record(session, call->arg_begin + j);
      bool constant = arg->space == IPU_SPACE_WEIGHTS || arg->space == IPU_SPACE_CONSTS;
      const struct ipu_view *view =
          &sections[arg->space == IPU_SPACE_WEIGHTS ? IPU_SECTION_WEIGHTS : IPU_SECTION_CONSTS];
      const uint8_t *memory = constant ? view->data : session->memory;
      require(inside(*slot, arg->size, memory, constant ? view->size : session->plan->arena_size));
      if (arg->size && constant) sink = *(const uint8_t *)*slot ^ ((const uint8_t *)*slot)[arg->size - 1];
    }
  }
}

static void check_tensors(const tvm_ipu_plan *plan) {
  for (uint32_t i = 0; i < plan->input_count + plan->output_count; i++) {
    const tvm_ipu_tensor *tensor = i < plan->input_count ? &plan->inputs[i] : &plan->outputs[i - plan->input_count];
    for (uint32_t j = 0; j < tensor->rank; j++) require(tensor->shape[j] >= 0);
    sink = (uint8_t)strlen(tensor->name);
    require(tvm_ipu_dtype_size(tensor->dtype) > 0);
  }
  for (uint32_t i = 0; i < plan->call_count; i++) {
    const tvm_ipu_call *call = &plan->calls[i];
    sink = (uint8_t)(strlen(call->kernel) + strlen(call->layer) + strlen(call->op) + strlen(call->template_name));
  }
}

static void run_plan(tvm_ipu_image *image, uint32_t plan, uint32_t threads) {
  tvm_ipu_error error;
  tvm_ipu_session *session;
  check_tensors(&image->plans[plan]);
  if (tvm_ipu_session_create(image, plan, threads, &session, &error)) return;
  check_args(session);
  require(session->plan->scratch_size <= (session->memory_size - session->plan->arena_size) / threads);
  for (uint32_t i = 0; i < session->plan->input_count; i++) {
    require(inside((uintptr_t)tvm_ipu_session_input(session, i), session->plan->inputs[i].nbytes, session->memory,
                   session->plan->arena_size));
  }
  for (uint32_t i = 0; i < session->plan->call_count; i++) session->jobs[i].kernel = idle_kernel;
  scratch_size = session->plan->scratch_size;
  require(!tvm_ipu_session_run(session, &error));
  tvm_ipu_session_destroy(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  void *copy = NULL; /* aligned, and ending where the image ends, so that ASan sees every step beyond */
  require(posix_memalign(&copy, TVM_IPU_ALIGNMENT, size + !size) == 0);
  memcpy(copy, data, size);
  tvm_ipu_error error;
  tvm_ipu_image *image;
  tvm_ipu_status status =
      tvm_ipu_image_open_memory(copy, size, size % 2 ? TVM_IPU_VERIFY_WEIGHTS : 0, &image, &error);
  require((status == TVM_IPU_OK) == (image != NULL));
  if (status) {
    require(error.status == status && error.message[0]);
  } else {
    size_t length;
    const char *metadata = tvm_ipu_image_metadata(image, &length);
    if (length) sink = (uint8_t)metadata[length - 1];
    sink = (uint8_t)strlen(tvm_ipu_image_target(image));
    for (uint32_t i = 0; i < image->plan_count && i < PLANS; i++) run_plan(image, i, size % 16 ? 1 : 2);
    tvm_ipu_image_close(image);
  }
  free(copy);
  return 0;
}
