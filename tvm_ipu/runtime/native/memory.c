/* Memory from the operating system: arenas, file mappings, executable pages. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum {
  HUGE_PAGE_WORTH = 2 << 20,         /* bytes from which huge pages pay */
  MOST_POPULATED_AT_ONCE = 32 << 20, /* bytes; 2 ms */
};

void *ipu_memory_reserve(size_t size) {
  void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
  if (size >= HUGE_PAGE_WORTH) (void)madvise(data, size, MADV_HUGEPAGE); /* a wish: failure changes nothing */
#endif
  return data;
}

void ipu_memory_release(void *data, size_t size) {
  if (data) munmap(data, size);
}

tvm_ipu_status ipu_memory_map_file(const char *path, const uint8_t **data, size_t *size, tvm_ipu_error *error) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
  if (file < 0) {
    return ipu_fail(error, TVM_IPU_ERROR_IO, errno == EACCES ? "check its permissions" : "check the path",
                    "%s: cannot open the image: %s", path, strerror(errno));
  }
  struct stat facts;
  tvm_ipu_status status = TVM_IPU_OK;
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    status = ipu_fail(error, TVM_IPU_ERROR_IO, "name an image, a file that 'tvm-ipu compile' made",
                      "%s: not a regular file", path);
  } else if ((uint64_t)facts.st_size > SIZE_MAX / 2) {
    status = ipu_fail(error, TVM_IPU_ERROR_MEMORY, "", "%s: %llu bytes do not fit the addresses of this process", path,
                      (unsigned long long)facts.st_size);
  } else if ((uint64_t)facts.st_size < sizeof(struct ipu_header)) {
    status = ipu_fail(error, TVM_IPU_ERROR_FORMAT, "make one with 'tvm-ipu compile'",
                      "%s: not an offline image: it has %llu bytes", path, (unsigned long long)facts.st_size);
  } else {
    *size = (size_t)facts.st_size;
    void *mapping = mmap(NULL, *size, PROT_READ, MAP_SHARED, file, 0);
    if (mapping == MAP_FAILED) {
      status = ipu_fail(error, TVM_IPU_ERROR_IO, "", "%s: cannot map the image: %s", path, strerror(errno));
    } else {
      *data = mapping;
    }
  }
  close(file);
  return status;
}

void ipu_memory_populate(const uint8_t *data, size_t size) {
#ifdef MADV_POPULATE_READ
  if (size > MOST_POPULATED_AT_ONCE) return;
  size_t before = (uintptr_t)data & ((size_t)sysconf(_SC_PAGESIZE) - 1);
  (void)madvise((void *)((uintptr_t)data - before), size + before, MADV_POPULATE_READ); /* a wish, too */
#else
  (void)data, (void)size;
#endif
}

/* Makes code that was just written visible to instruction fetch. */
static void flush_instructions(uint8_t *begin, uint8_t *end) {
#ifdef __hexagon__ /* without the compiler's helper */
  enum { LINE = 32 };
  for (uintptr_t line = (uintptr_t)begin & ~(uintptr_t)(LINE - 1); line < (uintptr_t)end; line += LINE) {
    __asm__ volatile("dccleana(%0)" : : "r"(line) : "memory");
    __asm__ volatile("icinva(%0)" : : "r"(line) : "memory");
  }
  __asm__ volatile("isync" : : : "memory");
#else
  __builtin___clear_cache((char *)begin, (char *)end);
#endif
}

const uint8_t *ipu_memory_executable(const uint8_t *code, size_t size, bool in_mapping, void **copy) {
  *copy = NULL;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  if (in_mapping && ((uintptr_t)code & (page - 1)) == 0 &&
      mprotect((void *)(uintptr_t)code, size, PROT_READ | PROT_EXEC) == 0) {
    return code;
  }
  uint8_t *memory = ipu_memory_reserve(size);
  if (!memory) return NULL;
  memcpy(memory, code, size);
  flush_instructions(memory, memory + size);
  if (mprotect(memory, size, PROT_READ | PROT_EXEC) != 0) {
    ipu_memory_release(memory, size);
    return NULL;
  }
  *copy = memory;
  return memory;
}
