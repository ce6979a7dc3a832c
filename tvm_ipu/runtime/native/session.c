/* Sessions: memory and addresses of one plan, and running it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

struct tvm_ipu_session {
  tvm_ipu_image *image;
  const tvm_ipu_plan *plan;
  const struct ipu_plan *record;
  atomic_flag busy;
  struct ipu_pool *pool;
  struct ipu_job *jobs;  /* [call_count] */
  uintptr_t *args;       /* addresses of all arguments of all calls */
  void **inputs;         /* [input_count], where each one lies now */
  void **outputs;        /* [output_count] */
  uint8_t *memory;       /* arena, then scratch of each thread */
  size_t memory_size;
};

static size_t round_up(size_t size) { return (size + TVM_IPU_ALIGNMENT - 1) / TVM_IPU_ALIGNMENT * TVM_IPU_ALIGNMENT; }

static const struct ipu_call *call_record(const tvm_ipu_session *session, uint32_t call) {
  return IPU_RECORD(&session->image->sections[IPU_SECTION_CALLS], struct ipu_call, session->record->call_begin + call);
}

static const struct ipu_arg *arg_record(const tvm_ipu_session *session, uint32_t arg) {
  return IPU_RECORD(&session->image->sections[IPU_SECTION_ARGS], struct ipu_arg, arg);
}

static uint8_t *own_buffer(const tvm_ipu_session *session, uint32_t tensor) {
  const struct ipu_view *tensors = &session->image->sections[IPU_SECTION_TENSORS];
  return session->memory + (size_t)IPU_RECORD(tensors, struct ipu_tensor, tensor)->arena_offset;
}

static uintptr_t address(const tvm_ipu_session *session, const struct ipu_arg *arg) {
  const uint8_t *base = NULL;
  switch (arg->space) {
    case IPU_SPACE_INPUT:
      base = session->inputs[arg->index];
      break;
    case IPU_SPACE_OUTPUT:
      base = session->outputs[arg->index];
      break;
    case IPU_SPACE_ARENA:
      base = session->memory;
      break;
    case IPU_SPACE_WEIGHTS:
      base = session->image->sections[IPU_SECTION_WEIGHTS].data;
      break;
    case IPU_SPACE_CONSTS:
      base = session->image->sections[IPU_SECTION_CONSTS].data;
      break;
  }
  return (uintptr_t)base + (uintptr_t)arg->offset;
}

/* Fills in the addresses of the arguments in `space` with number `index`, or of all with `all`. */
static void fill_args(tvm_ipu_session *session, bool all, uint32_t space, uint32_t index) {
  uintptr_t *slot = session->args;
  for (uint32_t i = 0; i < session->plan->call_count; i++) {
    const struct ipu_call *call = call_record(session, i);
    for (uint32_t j = 0; j < call->arg_count; j++, slot++) {
      const struct ipu_arg *arg = arg_record(session, call->arg_begin + j);
      if (all || (arg->space == space && arg->index == index)) *slot = address(session, arg);
    }
  }
}

static void fill_jobs(tvm_ipu_session *session) {
  const struct ipu_view *kernels = &session->image->sections[IPU_SECTION_KERNELS];
  const uintptr_t *args = session->args;
  for (uint32_t i = 0; i < session->plan->call_count; i++) {
    const struct ipu_call *call = call_record(session, i);
    size_t entry = (size_t)IPU_RECORD(kernels, struct ipu_kernel, call->kernel)->offset;
    session->jobs[i] = (struct ipu_job){
        .kernel = (ipu_kernel)(uintptr_t)(session->image->code + entry),
        .args = args,
        .extent = call->extent,
        .grain = call->grain,
    };
    args += call->arg_count;
  }
}

static tvm_ipu_status reserve(tvm_ipu_session *session, uint32_t threads, tvm_ipu_error *error) {
  const tvm_ipu_plan *plan = session->plan;
  uint64_t arg_count = 0;
  for (uint32_t i = 0; i < plan->call_count; i++) arg_count += call_record(session, i)->arg_count;
  size_t total;
  if (__builtin_mul_overflow(round_up(plan->scratch_size), threads, &total) ||
      __builtin_add_overflow(total, round_up(plan->arena_size), &total) || total > SIZE_MAX / 2 ||
      arg_count > SIZE_MAX / sizeof(uintptr_t) / 2) {
    return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "the plan needs %llu bytes and %llu for each of %u threads",
                    (unsigned long long)plan->arena_size, (unsigned long long)plan->scratch_size, threads);
  }
  session->memory_size = total ? total : TVM_IPU_ALIGNMENT;
  session->memory = ipu_memory_reserve(session->memory_size);
  session->jobs = calloc(plan->call_count + (size_t)1, sizeof *session->jobs);
  session->args = calloc((size_t)arg_count + 1, sizeof *session->args);
  session->inputs = calloc(plan->input_count + (size_t)1, sizeof *session->inputs);
  session->outputs = calloc(plan->output_count + (size_t)1, sizeof *session->outputs);
  if (!session->memory || !session->jobs || !session->args || !session->inputs || !session->outputs) {
    return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for an arena of %llu bytes",
                    (unsigned long long)total);
  }
  return TVM_IPU_OK;
}

tvm_ipu_status tvm_ipu_session_create(tvm_ipu_image *image, uint32_t plan, uint32_t threads,
                                      tvm_ipu_session **session, tvm_ipu_error *error) {
  *session = NULL;
  if (plan >= image->plan_count) {
    return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "plans are counted from 0", "there is no plan %u; the image has %u",
                    plan, image->plan_count);
  }
  if (threads < 1 || threads > TVM_IPU_MAX_THREADS) {
    return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "more threads than cores are no faster",
                    "%u threads; allowed are 1 to %u", threads, TVM_IPU_MAX_THREADS);
  }
  tvm_ipu_session *created = calloc(1, sizeof *created);
  if (!created) return ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "no memory for a session");
  atomic_flag_clear(&created->busy);
  ipu_image_retain(image);
  created->image = image;
  created->plan = &image->plans[plan];
  created->record = IPU_RECORD(&image->sections[IPU_SECTION_PLANS], struct ipu_plan, plan);
  tvm_ipu_status status = reserve(created, threads, error);
  if (!status) {
    uint8_t *scratch = created->memory + round_up(created->plan->arena_size);
    status = ipu_pool_create(threads, scratch, round_up(created->plan->scratch_size), &created->pool, error);
  }
  if (status) {
    tvm_ipu_session_destroy(created);
    return status;
  }
  for (uint32_t i = 0; i < created->plan->input_count; i++) {
    created->inputs[i] = own_buffer(created, created->record->input_begin + i);
  }
  for (uint32_t i = 0; i < created->plan->output_count; i++) {
    created->outputs[i] = own_buffer(created, created->record->output_begin + i);
  }
  fill_args(created, true, 0, 0);
  fill_jobs(created);
  *session = created;
  return TVM_IPU_OK;
}

void tvm_ipu_session_destroy(tvm_ipu_session *session) {
  if (!session) return;
  ipu_pool_destroy(session->pool);
  ipu_memory_release(session->memory, session->memory_size);
  free(session->jobs);
  free(session->args);
  free(session->inputs);
  free(session->outputs);
  tvm_ipu_image_close(session->image);
  free(session);
}

const tvm_ipu_plan *tvm_ipu_session_plan(const tvm_ipu_session *session) { return session->plan; }

void *tvm_ipu_session_input(const tvm_ipu_session *session, uint32_t index) {
  return index < session->plan->input_count ? session->inputs[index] : NULL;
}

const void *tvm_ipu_session_output(const tvm_ipu_session *session, uint32_t index) {
  return index < session->plan->output_count ? session->outputs[index] : NULL;
}

/* Checks that the tensor exists and that the caller's memory has its size. `kind` is "input" or "output". */
static tvm_ipu_status check_tensor(const tvm_ipu_tensor *tensors, uint32_t count, const char *kind, uint32_t index,
                                   size_t nbytes, tvm_ipu_error *error) {
  if (index >= count) {
    return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "", "there is no %s %u; the plan has %u", kind, index, count);
  }
  if (nbytes != tensors[index].nbytes) {
    return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "", "%s '%s' has %llu bytes, not %llu", kind, tensors[index].name,
                    (unsigned long long)tensors[index].nbytes, (unsigned long long)nbytes);
  }
  return TVM_IPU_OK;
}

/* The same for memory to be bound, which must be aligned; NULL stands for the session's own. */
static tvm_ipu_status check_binding(const tvm_ipu_tensor *tensors, uint32_t count, const char *kind, uint32_t index,
                                    const void *data, size_t nbytes, tvm_ipu_error *error) {
  size_t size = !data && index < count ? tensors[index].nbytes : nbytes;
  tvm_ipu_status status = check_tensor(tensors, count, kind, index, size, error);
  if (status || (uintptr_t)data % TVM_IPU_ALIGNMENT == 0) return status;
  return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "use aligned_alloc, or copy the data instead",
                  "memory bound to '%s' is not at a multiple of %u bytes", tensors[index].name, TVM_IPU_ALIGNMENT);
}

static tvm_ipu_status enter(tvm_ipu_session *session, tvm_ipu_error *error) {
  if (!atomic_flag_test_and_set_explicit(&session->busy, memory_order_acquire)) return TVM_IPU_OK;
  return ipu_fail(error, TVM_IPU_ERROR_BUSY, "create one session a thread: they share the image",
                  "the session is in use by another thread");
}

static void leave(tvm_ipu_session *session) { atomic_flag_clear_explicit(&session->busy, memory_order_release); }

tvm_ipu_status tvm_ipu_session_bind_input(tvm_ipu_session *session, uint32_t index, const void *data, size_t nbytes,
                                          tvm_ipu_error *error) {
  const tvm_ipu_plan *plan = session->plan;
  tvm_ipu_status status = check_binding(plan->inputs, plan->input_count, "input", index, data, nbytes, error);
  if (!status) status = enter(session, error);
  if (status) return status;
  /* Kernels only read their inputs. */
  session->inputs[index] = data ? (void *)(uintptr_t)data : own_buffer(session, session->record->input_begin + index);
  fill_args(session, false, IPU_SPACE_INPUT, index);
  leave(session);
  return TVM_IPU_OK;
}

tvm_ipu_status tvm_ipu_session_bind_output(tvm_ipu_session *session, uint32_t index, void *data, size_t nbytes,
                                           tvm_ipu_error *error) {
  const tvm_ipu_plan *plan = session->plan;
  tvm_ipu_status status = check_binding(plan->outputs, plan->output_count, "output", index, data, nbytes, error);
  if (!status) status = enter(session, error);
  if (status) return status;
  session->outputs[index] = data ? data : own_buffer(session, session->record->output_begin + index);
  fill_args(session, false, IPU_SPACE_OUTPUT, index);
  leave(session);
  return TVM_IPU_OK;
}

tvm_ipu_status tvm_ipu_session_set_input(tvm_ipu_session *session, uint32_t index, const void *data, size_t nbytes,
                                         tvm_ipu_error *error) {
  const tvm_ipu_plan *plan = session->plan;
  tvm_ipu_status status = check_tensor(plan->inputs, plan->input_count, "input", index, nbytes, error);
  if (status) return status;
  if (session->inputs[index] != own_buffer(session, session->record->input_begin + index)) {
    return ipu_fail(error, TVM_IPU_ERROR_ARGUMENT, "bind NULL first", "input '%s' is bound to the caller's memory",
                    plan->inputs[index].name);
  }
  if (nbytes) memcpy(session->inputs[index], data, nbytes);
  return TVM_IPU_OK;
}

tvm_ipu_status tvm_ipu_session_get_output(const tvm_ipu_session *session, uint32_t index, void *data, size_t nbytes,
                                          tvm_ipu_error *error) {
  const tvm_ipu_plan *plan = session->plan;
  tvm_ipu_status status = check_tensor(plan->outputs, plan->output_count, "output", index, nbytes, error);
  if (!status && nbytes) memcpy(data, session->outputs[index], nbytes);
  return status;
}

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* One run; `call_ns` may be NULL. A call's time ends where the next one's begins, so that they add up to the run's. */
static tvm_ipu_status run_calls(tvm_ipu_session *session, uint64_t *call_ns, tvm_ipu_error *error) {
  ipu_pool_enter(session->pool);
  uint64_t begin = call_ns ? now_ns() : 0;
  for (uint32_t i = 0; i < session->plan->call_count; i++) {
    int32_t result = ipu_pool_run(session->pool, &session->jobs[i]);
    if (call_ns) {
      uint64_t end = now_ns();
      call_ns[i] = end - begin;
      begin = end;
    }
    if (result != 0) {
      return ipu_fail(error, TVM_IPU_ERROR_KERNEL, "", "layer '%s' (kernel %s) failed with code %d",
                      session->plan->calls[i].layer, session->plan->calls[i].kernel, (int)result);
    }
  }
  return TVM_IPU_OK;
}

tvm_ipu_status tvm_ipu_session_run(tvm_ipu_session *session, tvm_ipu_error *error) {
  return tvm_ipu_session_profile(session, NULL, error);
}

tvm_ipu_status tvm_ipu_session_profile(tvm_ipu_session *session, uint64_t *call_ns, tvm_ipu_error *error) {
  tvm_ipu_status status = enter(session, error);
  if (status) return status;
  status = run_calls(session, call_ns, error);
  leave(session);
  return status;
}

tvm_ipu_status tvm_ipu_session_time_runs(tvm_ipu_session *session, uint32_t repeat, uint64_t *run_ns,
                                         tvm_ipu_error *error) {
  tvm_ipu_status status = enter(session, error);
  if (status) return status;
  for (uint32_t i = 0; i < repeat && !status; i++) {
    uint64_t begin = now_ns();
    status = run_calls(session, NULL, error);
    run_ns[i] = now_ns() - begin;
  }
  leave(session);
  return status;
}
