/* Maps a code image as the runtime does and runs kernels from it: run_kernels CODE JOBS RESULT [truncate].
 * With truncate, floating point rounds towards zero.
 * JOBS: for each job five 32-bit words (entry, begin, end, arguments, scratch bytes), then for each argument its size
 * in bytes and its contents. RESULT: the arguments of all jobs after the call, one after the other. */
#include <fenv.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MAX_ARGUMENTS = 8, MARGIN = 64 };
typedef int32_t (*kernel)(const uintptr_t *args, void *scratch, int32_t begin, int32_t end);

static void fail(const char *what) {
  fprintf(stderr, "run_kernels: %s\n", what);
  exit(1);
}

static void *map(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("no memory");
  return memory;
}

static uint8_t *load_code(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) fail("cannot read the code");
  size_t size = (size_t)ftell(file);
  rewind(file);
  uint8_t *code = map(size);
  if (fread(code, 1, size, file) != size) fail("cannot read the code");
  fclose(file);
#ifndef __hexagon__ /* zig has no such helper there; qemu does not need it */
  __builtin___clear_cache((char *)code, (char *)code + size);
#endif
  if (mprotect(code, size, PROT_READ | PROT_EXEC) != 0) fail("cannot execute the code");
  return code;
}

static uint32_t read_word(FILE *jobs) {
  uint32_t word;
  if (fread(&word, 4, 1, jobs) != 1) fail("the jobs are cut off");
  return word;
}

static void run(const uint8_t *code, uint32_t entry, FILE *jobs, FILE *result) {
  int32_t begin = (int32_t)read_word(jobs), end = (int32_t)read_word(jobs);
  uint32_t count = read_word(jobs), scratch_size = read_word(jobs), sizes[MAX_ARGUMENTS];
  uintptr_t args[MAX_ARGUMENTS];
  if (count > MAX_ARGUMENTS) fail("too many arguments");
  for (uint32_t i = 0; i < count; i++) {
    sizes[i] = read_word(jobs);
    uint8_t *memory = map(sizes[i] + MARGIN);
    if (fread(memory, 1, sizes[i], jobs) != sizes[i]) fail("the jobs are cut off");
    memset(memory + sizes[i], 0xa5, MARGIN);
    args[i] = (uintptr_t)memory;
  }
  void *scratch = scratch_size ? map(scratch_size) : NULL;
  kernel function;
  const uint8_t *address = code + entry;
  memcpy(&function, &address, sizeof function);
  if (function(args, scratch, begin, end) != 0) fail("a kernel failed");
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *memory = (const uint8_t *)args[i];
    for (uint32_t k = 0; k < MARGIN; k++) {
      if (memory[sizes[i] + k] != 0xa5) fail("a kernel wrote behind its argument");
    }
    fwrite(memory, 1, sizes[i], result);
    munmap((void *)args[i], sizes[i] + MARGIN);
  }
  if (scratch) munmap(scratch, scratch_size);
}

int main(int argc, char **argv) {
  if (argc < 4) fail("usage: run_kernels CODE JOBS RESULT [truncate]");
  const uint8_t *code = load_code(argv[1]);
  FILE *jobs = fopen(argv[2], "rb"), *result = fopen(argv[3], "wb");
  if (!jobs || !result) fail("cannot open the jobs or the result");
  if (argc == 5 && fesetround(FE_TOWARDZERO) != 0) fail("cannot set the rounding mode");
  uint32_t entry;
  while (fread(&entry, 4, 1, jobs) == 1) run(code, entry, jobs, result);
  if (fclose(result) != 0) fail("cannot write the result");
  return 0;
}
