/* C API of the tvm_ipu runtime: load an offline image and run it.
 *
 *   tvm_ipu_error error;
 *   tvm_ipu_image *image;
 *   tvm_ipu_session *session;
 *   if (tvm_ipu_image_open_file("net.img", 0, &image, &error)) die(error.message, error.hint);
 *   if (tvm_ipu_session_create(image, 0, 4, &session, &error)) die(error.message, error.hint);
 *   memcpy(tvm_ipu_session_input(session, 0), pixels, n);
 *   if (tvm_ipu_session_run(session, &error)) die(error.message, error.hint);
 *   use(tvm_ipu_session_output(session, 0));
 *
 * Functions that can fail return a status, 0 for success, and fill in `error` unless it is NULL.
 * The library keeps no global state. An image may be used by any number of threads at once. A session may be
 * used by one thread at a time, any thread; a second concurrent run is refused with TVM_IPU_ERROR_BUSY.
 */
#ifndef TVM_IPU_H
#define TVM_IPU_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TVM_IPU_API __attribute__((visibility("default")))
#else
#define TVM_IPU_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a function or structure below changes; additions do not raise it. */
#define TVM_IPU_API_VERSION 1

/* Every tensor that a caller binds must begin at a multiple of this many bytes. */
#define TVM_IPU_ALIGNMENT 64

/* Most threads of one session, the calling one included. */
#define TVM_IPU_MAX_THREADS 256

typedef enum tvm_ipu_status {
  TVM_IPU_OK = 0,
  TVM_IPU_ERROR_IO = 1,          /* the file cannot be opened or mapped */
  TVM_IPU_ERROR_FORMAT = 2,      /* not an image, or damaged */
  TVM_IPU_ERROR_VERSION = 3,     /* of another format version */
  TVM_IPU_ERROR_ARCH = 4,        /* for another architecture */
  TVM_IPU_ERROR_CPU_FEATURE = 5, /* needs a CPU feature that is missing here */
  TVM_IPU_ERROR_ARGUMENT = 6,    /* an argument of the call is wrong */
  TVM_IPU_ERROR_MEMORY = 7,      /* out of memory */
  TVM_IPU_ERROR_THREAD = 8,      /* a thread cannot be created */
  TVM_IPU_ERROR_KERNEL = 9,      /* a kernel reported a failure */
  TVM_IPU_ERROR_BUSY = 10        /* the session is running in another thread */
} tvm_ipu_status;

/* What went wrong, for people. `hint` says what to do about it and may be empty. */
typedef struct tvm_ipu_error {
  tvm_ipu_status status;
  char message[380];
  char hint[128];
} tvm_ipu_error;

/* Element types. bfloat16 is the upper half of a float32. From FLOAT8_E4M3FN on, an element takes a byte each, whose
 * upper bits are 0 where it has fewer. */
typedef enum tvm_ipu_dtype {
  TVM_IPU_BOOL = 1,
  TVM_IPU_INT8 = 2,
  TVM_IPU_UINT8 = 3,
  TVM_IPU_INT16 = 4,
  TVM_IPU_UINT16 = 5,
  TVM_IPU_INT32 = 6,
  TVM_IPU_UINT32 = 7,
  TVM_IPU_INT64 = 8,
  TVM_IPU_UINT64 = 9,
  TVM_IPU_FLOAT16 = 10,
  TVM_IPU_BFLOAT16 = 11,
  TVM_IPU_FLOAT32 = 12,
  TVM_IPU_FLOAT64 = 13,
  TVM_IPU_FLOAT8_E4M3FN = 14,
  TVM_IPU_FLOAT8_E4M3FNUZ = 15,
  TVM_IPU_FLOAT8_E5M2 = 16,
  TVM_IPU_FLOAT8_E5M2FNUZ = 17,
  TVM_IPU_FLOAT8_E8M0FNU = 18,
  TVM_IPU_FLOAT4_E2M1FN = 19,
  TVM_IPU_INT4 = 20,
  TVM_IPU_UINT4 = 21,
  TVM_IPU_INT2 = 22,
  TVM_IPU_UINT2 = 23
} tvm_ipu_dtype;

/* One input or output: dense and row-major. Lives as long as its image. */
typedef struct tvm_ipu_tensor {
  const char *name;
  tvm_ipu_dtype dtype;
  uint32_t rank;
  const int64_t *shape; /* `rank` dimensions */
  size_t nbytes;
  const char *format; /* of a camera's frame ("YUV_NV12" ...) or of raw data; "" for plain numbers */
  float scale;        /* integers q mean (q - zero) * scale; 0 where they mean themselves */
  int32_t zero;
} tvm_ipu_tensor;

/* One kernel call of a plan, for profiles. Lives as long as its image. */
typedef struct tvm_ipu_call {
  const char *kernel;   /* symbol in the image's code */
  const char *layer;    /* the model's node or nodes */
  const char *op;       /* kind of operator */
  const char *template_name;
  uint64_t flops;       /* operations; a multiply-add counts two */
  uint64_t bytes;       /* bytes that have to be read and written at least */
  int32_t extent;       /* units of work that threads may share */
  int32_t grain;        /* fewest units worth a thread of their own */
} tvm_ipu_call;

/* One plan: the calls for one set of input shapes. Lives as long as its image. */
typedef struct tvm_ipu_plan {
  const tvm_ipu_tensor *inputs;
  const tvm_ipu_tensor *outputs;
  const tvm_ipu_call *calls;
  uint32_t input_count;
  uint32_t output_count;
  uint32_t call_count;
  size_t arena_size;   /* bytes of a session's arena */
  size_t scratch_size; /* bytes of each thread's private memory */
} tvm_ipu_plan;

typedef struct tvm_ipu_image tvm_ipu_image;
typedef struct tvm_ipu_session tvm_ipu_session;

/* Flags of tvm_ipu_image_open_*. */
#define TVM_IPU_VERIFY_WEIGHTS 1u /* compare the checksum of the weights too: reads all of them */
#define TVM_IPU_SKIP_CPU_CHECK 2u /* trust the caller that the CPU has the features that the image needs */

/* --- Images ------------------------------------------------------------------------------------- */

/* Maps the file at `path` read-only, checks it and stores the image in `*image`. Weights are not touched. Processes
 * that open the same file share its memory. The file must not be changed while it is open, and cutting it short raises
 * SIGBUS; replacing it by a rename is safe. */
TVM_IPU_API tvm_ipu_status tvm_ipu_image_open_file(const char *path, uint32_t flags, tvm_ipu_image **image,
                                                   tvm_ipu_error *error);

/* The same for an image in memory. Bytes at a multiple of TVM_IPU_ALIGNMENT are used in place, without a copy of the
 * weights, and must stay unchanged until the image is gone; other bytes are copied. */
TVM_IPU_API tvm_ipu_status tvm_ipu_image_open_memory(const void *data, size_t size, uint32_t flags,
                                                     tvm_ipu_image **image, tvm_ipu_error *error);

/* Gives the image back; its memory goes when its last session is destroyed. NULL is allowed. */
TVM_IPU_API void tvm_ipu_image_close(tvm_ipu_image *image);

/* Number of plans, at least 1. */
TVM_IPU_API uint32_t tvm_ipu_image_plan_count(const tvm_ipu_image *image);

/* Plan number `index`; NULL if there is none. */
TVM_IPU_API const tvm_ipu_plan *tvm_ipu_image_plan(const tvm_ipu_image *image, uint32_t index);

/* Name of the target that the image was compiled for. */
TVM_IPU_API const char *tvm_ipu_image_target(const tvm_ipu_image *image);

/* JSON object with facts about the model; `*size` bytes, not ended by a zero byte. */
TVM_IPU_API const char *tvm_ipu_image_metadata(const tvm_ipu_image *image, size_t *size);

/* --- Sessions ----------------------------------------------------------------------------------- */

/* Reserves the memory of plan `plan` and starts `threads` - 1 worker threads (1 <= threads <= TVM_IPU_MAX_THREADS). Running
 * a session allocates nothing. */
TVM_IPU_API tvm_ipu_status tvm_ipu_session_create(tvm_ipu_image *image, uint32_t plan, uint32_t threads,
                                                  tvm_ipu_session **session, tvm_ipu_error *error);

/* Stops the worker threads and frees the memory. No thread may be running the session. NULL is allowed. */
TVM_IPU_API void tvm_ipu_session_destroy(tvm_ipu_session *session);

/* The plan that the session runs. */
TVM_IPU_API const tvm_ipu_plan *tvm_ipu_session_plan(const tvm_ipu_session *session);

/* Memory of input or output `index`: the session's own, or what the caller has bound. NULL if there is no such one. Fresh
 * memory of a session is zero. */
TVM_IPU_API void *tvm_ipu_session_input(const tvm_ipu_session *session, uint32_t index);
TVM_IPU_API const void *tvm_ipu_session_output(const tvm_ipu_session *session, uint32_t index);

/* Makes input or output `index` use the caller's memory, without a copy, from the next run on. `data` must be a multiple
 * of TVM_IPU_ALIGNMENT, hold exactly the tensor's `nbytes`, and stay valid while bound. NULL goes back to the
 * session's own memory. No two tensors may be bound to overlapping bytes, unless both are inputs. */
TVM_IPU_API tvm_ipu_status tvm_ipu_session_bind_input(tvm_ipu_session *session, uint32_t index, const void *data,
                                                      size_t nbytes, tvm_ipu_error *error);
TVM_IPU_API tvm_ipu_status tvm_ipu_session_bind_output(tvm_ipu_session *session, uint32_t index, void *data,
                                                       size_t nbytes, tvm_ipu_error *error);

/* Copies a whole tensor into input `index` or out of output `index`; any alignment. An input that the caller has bound
 * is not written to: unbind it first. */
TVM_IPU_API tvm_ipu_status tvm_ipu_session_set_input(tvm_ipu_session *session, uint32_t index, const void *data,
                                                     size_t nbytes, tvm_ipu_error *error);
TVM_IPU_API tvm_ipu_status tvm_ipu_session_get_output(const tvm_ipu_session *session, uint32_t index, void *data,
                                                      size_t nbytes, tvm_ipu_error *error);

/* Runs the model once. */
TVM_IPU_API tvm_ipu_status tvm_ipu_session_run(tvm_ipu_session *session, tvm_ipu_error *error);

/* Runs the model `repeat` times and stores the nanoseconds of each run in `run_ns[0..repeat)`. */
TVM_IPU_API tvm_ipu_status tvm_ipu_session_time_runs(tvm_ipu_session *session, uint32_t repeat, uint64_t *run_ns,
                                                     tvm_ipu_error *error);

/* Runs the model once and stores the nanoseconds of each call in `call_ns[0..call_count)`. */
TVM_IPU_API tvm_ipu_status tvm_ipu_session_profile(tvm_ipu_session *session, uint64_t *call_ns,
                                                   tvm_ipu_error *error);

/* --- Facts -------------------------------------------------------------------------------------- */

/* TVM_IPU_API_VERSION of the library. */
TVM_IPU_API uint32_t tvm_ipu_api_version(void);

/* Architecture that the library was built for, as images name it. */
TVM_IPU_API const char *tvm_ipu_host_arch(void);

/* 1 if the CPU and the operating system have `feature` (LLVM's spelling: "avx2", "dotprod" ...), 0 if not, -1 if
 * the library does not know it. */
TVM_IPU_API int tvm_ipu_host_has_feature(const char *feature);

/* Bytes of one element; 0 for a value that is no type. */
TVM_IPU_API size_t tvm_ipu_dtype_size(tvm_ipu_dtype dtype);

/* Name of an element type, such as "float32"; "unknown" for a value that is no type. */
TVM_IPU_API const char *tvm_ipu_dtype_name(tvm_ipu_dtype dtype);

#ifdef __cplusplus
}
#endif
#endif
