/* What the C tests share. */
#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tvm_ipu.h"

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

/* The whole file at an aligned address, in a block of exactly its size. */
static inline uint8_t *read_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  CHECK(file && fseek(file, 0, SEEK_END) == 0);
  *size = (size_t)ftell(file);
  rewind(file);
  void *data = NULL;
  CHECK(posix_memalign(&data, TVM_IPU_ALIGNMENT, *size) == 0);
  CHECK(fread(data, 1, *size, file) == *size);
  fclose(file);
  return (uint8_t *)data;
}

#endif
