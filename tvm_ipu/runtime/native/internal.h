/* What the library's files share. Nothing here is visible outside it. */
#ifndef IPU_INTERNAL_H
#define IPU_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "ipu_format.h"
#include "tvm_ipu.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "images are little-endian and are used in place"
#endif

/* Kernel ABI: docs/image-format.md. */
typedef int32_t (*ipu_kernel)(const uintptr_t *args, void *scratch, int32_t begin, int32_t end);

/* --- error.c --- */

/* Fills in `error` (may be NULL) and returns `status`. */
tvm_ipu_status ipu_fail(tvm_ipu_error *error, tvm_ipu_status status, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Hint for records that contradict each other behind right checksums. */
#define IPU_INCONSISTENT "the checksums agree, so the tool that wrote the image is at fault"

/* --- crc32.c --- */

struct ipu_crc_tables {
  uint32_t row[8][256];
};
void ipu_crc_init(struct ipu_crc_tables *tables);
/* CRC-32 of `size` bytes that follow bytes whose CRC is `crc` (0 at the beginning). */
uint32_t ipu_crc32(const struct ipu_crc_tables *tables, uint32_t crc, const void *data, size_t size);

/* --- memory.c --- */

/* Zeroed memory at a page boundary, touched when first used; NULL if there is none. */
void *ipu_memory_reserve(size_t size);
void ipu_memory_release(void *data, size_t size);
/* Maps a whole file read-only. */
tvm_ipu_status ipu_memory_map_file(const char *path, const uint8_t **data, size_t *size, tvm_ipu_error *error);
/* Maps the pages of a part of a mapped file at once, if there are few: the first run then does without faults. */
void ipu_memory_populate(const uint8_t *data, size_t size);
/* Lets the CPU execute `code`: in place if it is part of a file mapping and fills whole pages, else in a copy, which
 * is then in `*copy`, to be released. NULL if the system refuses. */
const uint8_t *ipu_memory_executable(const uint8_t *code, size_t size, bool in_mapping, void **copy);

/* --- cpu.c --- */

/* Checks the comma-separated list of features that an image needs. */
tvm_ipu_status ipu_cpu_check(const char *required, tvm_ipu_error *error);

/* --- container.c --- */

/* One section in memory. `count` is the number of records, 0 for plain bytes. */
struct ipu_view {
  const uint8_t *data;
  size_t size;
  uint32_t stride;
  uint32_t count;
};

/* Record `index` of a view whose records are `type`; the caller has checked the index. */
#define IPU_RECORD(view, type, index) ((const type *)(const void *)((view)->data + (size_t)(index) * (view)->stride))

/* Checks header, section table and checksums; fills in `sections`, indexed by section type. */
tvm_ipu_status ipu_container_read(const uint8_t *data, size_t size, uint32_t flags, struct ipu_view *sections,
                                  tvm_ipu_error *error);

/* --- image.c, tables.c --- */

struct tvm_ipu_image {
  atomic_uint references;
  const uint8_t *data;
  size_t size;
  bool mapped;       /* `data` is our mapping of a file */
  void *owned;       /* our copy of the caller's bytes, or NULL */
  const uint8_t *code;
  void *code_copy;
  struct ipu_view sections[IPU_SECTION_TYPE_END];
  uint32_t plan_count;
  tvm_ipu_plan *plans;
  tvm_ipu_tensor *tensors;
  tvm_ipu_call *calls;
  int64_t *dims;
};

/* Checks every record of the tables and decodes plans, tensors and calls. On failure what was allocated is in
 * `image` still. */
tvm_ipu_status ipu_tables_read(tvm_ipu_image *image, tvm_ipu_error *error);
/* Text at `offset` of the strings section; NULL if it is outside. */
const char *ipu_image_string(const tvm_ipu_image *image, uint32_t offset);
void ipu_image_retain(tvm_ipu_image *image);

/* --- pool.c --- */

struct ipu_pool;

/* One kernel call, ready to be made. */
struct ipu_job {
  ipu_kernel kernel;
  const uintptr_t *args;
  int32_t extent;
  int32_t grain;
};

/* Starts `threads` - 1 workers; thread i gets `scratch` + i * `scratch_stride`. */
tvm_ipu_status ipu_pool_create(uint32_t threads, uint8_t *scratch, size_t scratch_stride, struct ipu_pool **pool,
                               tvm_ipu_error *error);
void ipu_pool_destroy(struct ipu_pool *pool);
/* To be called before the jobs of a run: in a forked child, which has no workers, the caller's thread does everything. */
void ipu_pool_enter(struct ipu_pool *pool);
/* Runs one job on as many threads as it is worth; 0, or the value that a kernel returned instead. */
int32_t ipu_pool_run(struct ipu_pool *pool, const struct ipu_job *job);

#endif
